"""Branches: runs that go on from another run's checkpoint, and leave that run as it is."""

import json
import os
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chomp.checkpoint.compatibility import changes
from chomp.checkpoint.directory import CheckpointDirectory, damage_lines
from chomp.config import Config, config_from_mapping
from chomp.errors import ConfigError, DiskError, ResumeError
from chomp.run.folder_config import load_folder_config
from chomp.run.record import Parent, RunRecord, read_record
from chomp.run.run_folder import RunFolder
from chomp.system.console import Console
from chomp.tracking.jsonl import rows_up_to

OWN_PLACES = ("checkpoint.root_dir", "logging.metrics_file", "logging.log_file")
"""Keys of what a run writes: a branch has the default where its parent's path is outside of it."""
NOT_SHOWN = (*OWN_PLACES, "logging.run_dir")


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
        ConfigError: the changed configuration is wrong.
        ResumeError: there is no such run or good checkpoint, or the new folder isn't free.
        DiskError: the folder can't be written.
    """
    folder = RunFolder(request.run_dir)
    folder.require_run()
    old = config_from_mapping(folder.read_resolved())
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
    before, now = old.model_dump(mode="json"), config.model_dump(mode="json")
    found = [change for change in changes(before, now) if change.key not in NOT_SHOWN]
    parent = Parent(
        _identifier(folder),
        str(folder.path.resolve()),
        step,
        "branch",
        [change.key for change in found],
    )
    _write(folder, old, request.new, now, parent)
    return Branch(request.new, parent, [str(change) for change in found], config.train.steps)


def _own_places(config: Config) -> list[str]:
    """Return overrides that keep a branch from writing where its parent does."""
    values = (config.checkpoint.root_dir, config.logging.metrics_file, config.logging.log_file)
    instead = ("null", "metrics.jsonl", "train.log")
    return [
        f"{key}={default}"
        for key, value, default in zip(OWN_PLACES, values, instead, strict=True)
        if value is not None and (os.path.isabs(value) or ".." in Path(value).parts)
    ] + ["logging.run_dir=null"]


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


def _write(
    folder: RunFolder, old: Config, new: Path, resolved: dict[str, Any], parent: Parent
) -> None:
    """Write the branch's folder aside, and give it its name once all is there."""
    if os.path.lexists(new) and not (new.is_dir() and not any(new.iterdir())):
        raise ResumeError(f"{new} is there already; give a new folder")
    branch = RunFolder(new.with_name(f".{new.name}.unfinished-{secrets.token_hex(4)}"))
    try:
        branch.path.mkdir(parents=True)
        source = folder.inside(old.checkpoint.root_dir or "checkpoints") / str(parent.step)
        shutil.copytree(source, branch.path / "checkpoints" / source.name)
        if folder.tokenizer.is_dir():
            shutil.copytree(folder.tokenizer, branch.tokenizer)
        metrics = folder.inside(old.logging.metrics_file)
        for rows, to in (
            (metrics, branch.inside(resolved["logging"]["metrics_file"])),
            (
                folder.samples,
                branch.samples,
            ),
        ):
            to.parent.mkdir(parents=True, exist_ok=True)
            with to.open("wb") as file:
                file.writelines(rows_up_to(parent.step, rows))
        before = json.loads((source / "run.json").read_text("utf-8"))["meta"]
        record = RunRecord(
            secrets.token_hex(8),
            skipped_batches=before["skipped"],
            config=before["config"],
            parent=parent,
        )
        branch.record.write_text(record.to_json(), "utf-8")
        branch.write_configs(_original(folder, parent), resolved)
        if problem := CheckpointDirectory(branch.path / "checkpoints").problem(parent.step):
            raise DiskError(f"{new}: the copy of the checkpoint is damaged: {problem}; try again")
        new.parent.mkdir(parents=True, exist_ok=True)
        branch.path.rename(new)
    except OSError as error:
        raise DiskError(
            f"{new} can't be made ({error.strerror or error}); make room on the disk, or give "
            "another folder"
        ) from error
    finally:
        shutil.rmtree(branch.path, ignore_errors=True)


def _original(folder: RunFolder, parent: Parent) -> str:
    """Return the parent's own configuration, with a line that says what the branch is."""
    keys = f"; other values than here: {', '.join(parent.allow_change)}"
    what = f"# A branch of {parent.folder!r} after step {parent.step}"
    return f"{what}{keys if parent.allow_change else ''}.\n{folder.read_original()}"
