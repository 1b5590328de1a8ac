"""Branches: runs that go on from another run's checkpoint, and leave that run as it is."""

import json
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from chomp.checkpoint.compatibility import changes, keep_old_defaults, rewarm_from
from chomp.checkpoint.directory import CheckpointDirectory, damage_lines
from chomp.config import Config, config_from_mapping
from chomp.errors import ConfigError, DiskError, ResumeError
from chomp.run.folder_config import load_folder_config
from chomp.run.ownership import claim_outputs
from chomp.run.record import Parent, RunRecord, read_record
from chomp.run.run_folder import RunFolder
from chomp.run_files import UNFINISHED_BRANCH
from chomp.system.console import Console
from chomp.system.folder_lock import LOCK, FolderLock
from chomp.system.path_limits import LONGEST, check_path, shortened, why
from chomp.tracking.jsonl import rows_up_to

OWN_PLACES = {
    "checkpoint.root_dir": "null",
    "logging.metrics_file": "metrics.jsonl",
    "logging.log_file": "train.log",
}
"""Keys of what a run writes, and what a branch has where its parent's path is outside of it."""


@dataclass(frozen=True)
class BranchRequest:
    """A request for a branch.

    Attributes:
        run_dir: folder of the run to go on from.
        step: `latest` or a saved step.
        new: folder of the branch, which must not exist yet or be empty.
        overrides: `KEY=VALUE` for what is to be different.
    """

    run_dir: Path
    step: str
    new: Path
    overrides: Sequence[str] = ()


@dataclass(frozen=True)
class Branch:
    """A branch that was made.

    Attributes:
        folder: of the branch.
        parent: the run and step that it goes on from.
        changed: each key that is different, with its old and new value.
        steps: the last step of its training.
    """

    folder: Path
    parent: Parent
    changed: Sequence[str]
    steps: int

    def lines(self) -> list[str]:
        """Return what a person reads of it."""
        left = self.steps - self.parent.step
        return [
            f"branch     {self.folder}, of {self.parent.folder} after step {self.parent.step}",
            *(f"changed    {change}" for change in self.changed),
            f"steps      {left} more, to {self.steps}",
            f"go on      chomp train --run-dir {self.folder} --resume latest",
        ]


def branch_run(request: BranchRequest, console: Console) -> Branch:
    """Make a run folder that goes on from a checkpoint with all that it holds.

    Parameters, optimizer, data position and rows of metrics are copied; the ledger of the steps
    before stays where it is, and the branch's record says where.

    Args:
        request: which run, and where to.
        console: shows warnings.

    Raises:
        ConfigError: the changed configuration is wrong, or has the branch write outside of its
            folder.
        ResumeError: there is no such run or good checkpoint, or the new folder isn't free.
        DiskError: the folder can't be written.
    """
    folder = RunFolder(request.run_dir)
    folder.require_run()
    values = folder.read_resolved()
    old = keep_old_defaults(config_from_mapping(values), values)
    config, warnings = load_folder_config(
        folder.resolved_config, [*_own_places(old), *request.overrides]
    )
    for warning in warnings:
        console.warn(warning)
    place = folder.inside(old.checkpoint.root_dir or "checkpoints")
    step = _choose(CheckpointDirectory(place), request, console)
    if config.train.steps < step:
        raise ConfigError(
            [
                f"train.steps: {config.train.steps} is less than the {step} steps that are done; "
                f"give more (-o train.steps={step + 1}), or branch off an earlier step"
            ]
        )
    if not config.checkpoint.enabled:
        raise ConfigError(["checkpoint.enabled: must be true: a branch begins from a checkpoint"])
    _check_places(config)
    _check_second_rise(old, config, request.overrides, step)
    config = rewarm_from(config, old.model_dump(mode="json"), step)
    before, now = old.model_dump(mode="json"), config.model_dump(mode="json")
    found = [change for change in changes(before, now) if change.key != "logging.run_dir"]
    parent = Parent(
        _identifier(folder),
        str(folder.path.resolve()),
        step,
        "branch",
        [change.key for change in found],
    )
    with _made_aside(request.new) as branch:
        _write(folder, old, branch, config, parent)
    return Branch(request.new, parent, [str(change) for change in found], config.train.steps)


def _own_places(config: Config) -> list[str]:
    """Return overrides that keep a branch from writing where its parent does."""
    return [
        *(f"{key}={OWN_PLACES[key]}" for key, value in _places(config) if _is_outside(value)),
        "logging.run_dir=null",
    ]


def _places(config: Config) -> list[tuple[str, str]]:
    values = (config.checkpoint.root_dir, config.logging.metrics_file, config.logging.log_file)
    return [(key, value) for key, value in zip(OWN_PLACES, values, strict=True) if value]


def _is_outside(value: str) -> bool:
    """Whether a path leads out of the run folder, to what may be somebody's: not so /dev/null."""
    path = Path(value)
    if path.is_absolute() and path.exists() and not (path.is_file() or path.is_dir()):
        return False
    return path.is_absolute() or ".." in path.parts


def _check_places(config: Config) -> None:
    """Check that a branch, which is made whole in one folder, has all in there."""
    if outside := [(key, value) for key, value in _places(config) if _is_outside(value)]:
        raise ConfigError(
            [
                f"{key}: must be a path inside of the branch (got {value!r}); to have it "
                f"elsewhere, move it once the branch is made, and give -o {key} at the first start"
                for key, value in outside
            ]
        )


def _check_second_rise(old: Config, config: Config, overrides: Sequence[str], step: int) -> None:
    """Check that a rise of the learning rate which is asked for isn't that of the parent."""
    begin, asked = config.optim.rewarm_from, "optim.rewarm_steps="
    if (
        begin == old.optim.rewarm_from
        and begin is not None
        and any(override.startswith(asked) for override in overrides)
    ):
        raise ConfigError(
            [
                f"optim.rewarm_from: the learning rate rises from step {begin} on in this run; "
                f"for a rise here give -o optim.rewarm_from={step} as well"
            ]
        )


def _choose(checkpoints: CheckpointDirectory, request: BranchRequest, console: Console) -> int:
    if not checkpoints.folder.is_dir():
        raise ResumeError(f"{request.run_dir} has no checkpoints; there is nothing to go on from")
    choice = checkpoints.choose(request.step)
    for line in damage_lines(choice):
        console.warn(line)
    if choice.step is None:
        raise ResumeError(f"{request.run_dir} has no checkpoint yet; train it first")
    return choice.step


def _identifier(folder: RunFolder) -> str:
    try:
        record = read_record(folder.record)
    except ValueError as error:
        raise ResumeError(f"{folder.record} is broken ({error}); resume the run to mend it") from (
            error
        )
    if record is None:
        raise ResumeError(f"{folder.record} is missing; resume the run to make it anew")
    return record.run


@contextmanager
def _made_aside(new: Path) -> Iterator[RunFolder]:
    """Yield a folder beside `new`, which gets its name once all is in it.

    What a killed command left there goes first.

    Raises:
        ResumeError: `new` isn't free, or can't be.
        DiskError: it can't be written.
    """
    place = _free_place(new)
    draft = RunFolder(place.with_name(f"{UNFINISHED_BRANCH}{secrets.token_hex(4)}"))
    try:
        for path in place.parent.glob(f"{UNFINISHED_BRANCH}*"):
            _remove_unless_in_use(path)
        draft.path.mkdir(parents=True)
        with draft.lock():
            yield draft
            draft.path.rename(place)
    except OSError as error:
        raise DiskError(
            f"{shortened(new)} can't be made ({_reason(error)}); make room on the disk, or give "
            "another folder"
        ) from error
    finally:
        shutil.rmtree(draft.path, ignore_errors=True)


def _free_place(new: Path) -> Path:
    """Return the path of a new run's folder without links."""
    try:
        place = new.resolve()
        check_path(place / LONGEST)
        free = not os.path.lexists(place) or (place.is_dir() and not any(place.iterdir()))
    except (OSError, ValueError, RuntimeError) as error:  # the last: links in a circle
        raise ResumeError(
            f"{shortened(new)} can't be made a run folder ({why(error)}); give another folder"
        ) from error
    if not free:
        raise ResumeError(f"{new} is there already; give a new folder")
    if around := RunFolder(place).run_around():
        raise ResumeError(
            f"{shortened(new)} is inside of the run {around}, which may move or delete it; give "
            "another folder"
        )
    return place


def _remove_unless_in_use(path: Path) -> None:
    try:
        if not (path / LOCK).is_file() and any(path.iterdir()):  # of another make
            return
        with FolderLock(path) as lock:
            if lock.held:
                shutil.rmtree(path, ignore_errors=True)
    except OSError:  # another command is at it
        pass


def _reason(error: OSError) -> str:
    if isinstance(error, shutil.Error):  # of copying a tree: a list of source, target and reason
        return str(error.args[0][0][2])
    return why(error)


def _write(
    folder: RunFolder, old: Config, branch: RunFolder, config: Config, parent: Parent
) -> None:
    """Write all files of a branch."""
    resolved = config.model_dump(mode="json")
    with ExitStack() as resources:
        claim_outputs(branch.path, "", config, resources, new=True, clean=False)
    there = CheckpointDirectory(folder.inside(old.checkpoint.root_dir or "checkpoints"))
    here = CheckpointDirectory(branch.inside(config.checkpoint.root_dir or "checkpoints"))
    _copy_checkpoint(parent.step, there, here)
    if folder.tokenizer.is_dir():
        shutil.copytree(folder.tokenizer, branch.tokenizer)
    _copy_rows(
        parent.step,
        folder.inside(old.logging.metrics_file),
        branch.inside(config.logging.metrics_file),
    )
    _copy_rows(parent.step, folder.samples, branch.samples)
    record = here.path(parent.step) / "run.json"
    before = json.loads(record.read_text("utf-8"))["meta"]
    branch.record.write_text(
        RunRecord(
            secrets.token_hex(8),
            skipped_batches=before["skipped"],
            config=before["config"],
            parent=parent,
        ).to_json(),
        "utf-8",
    )
    branch.write_configs(_original(folder, parent), resolved)


def _copy_checkpoint(step: int, there: CheckpointDirectory, here: CheckpointDirectory) -> None:
    failure = None
    try:
        shutil.copytree(there.path(step), here.path(step))
    except OSError as error:
        failure = error
    if there.complete(step) is None:
        raise ResumeError(
            f"the checkpoint of step {step} in {there.folder} was deleted while it was copied: a "
            "run that is training keeps checkpoint.max_to_keep of them; give a newer one"
        ) from failure
    if failure:
        raise failure
    if problem := here.problem(step):
        raise DiskError(f"the copy of the checkpoint is damaged: {problem}; try again")


def _copy_rows(step: int, rows: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    with to.open("wb") as file:
        file.writelines(rows_up_to(step, rows))


def _original(folder: RunFolder, parent: Parent) -> str:
    """Return the parent's own configuration, with a line that says what the branch is."""
    keys = f"; other values than here: {', '.join(parent.allow_change)}"
    what = f"# A branch of {parent.folder!r} after step {parent.step}"
    return f"{what}{keys if parent.allow_change else ''}.\n{folder.read_original()}"
