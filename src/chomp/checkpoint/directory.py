"""A folder of checkpoints: which of them are good, which to go on from, which to keep."""

import itertools
import os
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from chomp.checkpoint.contents import ITEMS, RECORD, what_is_missing
from chomp.checkpoint.manifest import NAME, Manifest, check_sizes, read_manifest, verify
from chomp.errors import DamagedError, ResumeError
from chomp.run_files import RUN_FILES

# In front of the names of folders that don't count: being written, or being deleted. The name of
# the run that made them comes next: what hasn't this name is somebody else's, and stays.
UNFINISHED = "unfinished-"
SET_ASIDE = "set-aside-"
CONFIG = RUN_FILES[0]


class CheckpointChoice(NamedTuple):
    """The checkpoint to use."""

    step: int | None
    """None: nothing was saved."""
    rejected: list[tuple[int, str]]
    """Newer ones that were passed over, newest first: step, and what is wrong with it."""


class Retention(NamedTuple):
    """The rule by which old checkpoints are deleted."""

    max_to_keep: int | None = None
    """The newest so many; None: all."""
    keep_every: int = 0
    """Steps divisible by it stay for good; 0: none."""

    def is_permanent(self, step: int) -> bool:
        """Whether the checkpoint of `step` is never deleted."""
        return self.keep_every > 0 and step % self.keep_every == 0

    def outdated(self, steps: Sequence[int]) -> list[int]:
        """Return those of the steps, given oldest first, that needn't stay."""
        old = steps[: -self.max_to_keep] if self.max_to_keep else ()
        return [step for step in old if not self.is_permanent(step)]


class CheckpointDirectory:
    """The checkpoints of one folder, each in a folder of its own that is named by its step.

    A folder gets this name in one rename once all is in it, and loses it in one before anything
    is deleted: what a killed process leaves behind has another name.

    Args:
        folder: the checkpoints' folder; may hold other things, which are left alone.
        owner: name of the run that writes here, which no other run has; None: nobody's.
    """

    def __init__(self, folder: Path, owner: str | None = None):
        self.folder = folder
        self._unfinished = f"{UNFINISHED}{owner or secrets.token_hex(8)}-"

    def path(self, step: int) -> Path:
        """Return the folder of a step."""
        return self.folder / str(step)

    def steps(self) -> list[int]:
        """Return the steps that were saved, be they still good or not; oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted(int(path.name) for path in self.folder.iterdir() if _is_step(path))

    def complete(self, step: int) -> Manifest | None:
        """Return the manifest of `step` if its files are all there in their sizes; reads none."""
        try:
            manifest = read_manifest(self.path(step))
            check_sizes(self.path(step), manifest)
        except DamagedError:
            return None
        return None if what_is_missing(manifest.files) else manifest

    def problem(self, step: int) -> str | None:
        """Read the whole checkpoint of `step`; return what is wrong with it, None if nothing is."""
        try:
            manifest = verify(self.path(step))
        except DamagedError as error:
            return str(error)
        if lacking := what_is_missing(manifest.files):
            return f"{lacking} was never written: it can't be read"
        return None

    def good_steps(self) -> list[int]:
        """Return the steps whose files are all as they were written, oldest first; reads all."""
        return [step for step in self.steps() if self.problem(step) is None]

    def newest_good(self, at_most: int | None = None) -> CheckpointChoice:
        """Return the newest good checkpoint, or the newest one of step `at_most` or before."""
        rejected = []
        for step in reversed(self.steps()):
            if at_most is not None and step > at_most:
                continue
            problem = self.problem(step)
            if problem is None:
                return CheckpointChoice(step, rejected)
            # Else the run that it belongs to has just deleted it as too old.
            if os.path.lexists(self.path(step)):
                rejected.append((step, problem))
        return CheckpointChoice(None, rejected)

    def choose(self, wanted: str | int) -> CheckpointChoice:
        """Return the checkpoint that `latest` or a step names, once it is known to be good.

        Raises:
            ResumeError: there is none of this step; it is damaged; or all of them are.
        """
        if wanted == "latest":
            choice = self.newest_good()
            if choice.step is None and choice.rejected:
                lines = [f"no checkpoint in {self.folder} is good:"]
                lines += [f"  step {step}: {problem}" for step, problem in choice.rejected]
                lines += [
                    "bring one of them back from a backup, or start a new run in another folder"
                ]
                raise ResumeError("\n".join(lines))
            return choice
        steps = self.steps()
        if str(wanted) not in map(str, steps):
            raise ResumeError(
                f"no checkpoint of step {str(wanted)!r} in {self.folder} (saved steps: "
                f"{_listed(steps)}); give one of these or 'latest'"
            )
        if problem := self.problem(int(wanted)):
            raise ResumeError(
                f"the checkpoint of step {wanted} in {self.folder} is damaged: {problem} "
                f"(good steps: {_listed(self.good_steps())}); give one of these or 'latest'"
            )
        return CheckpointChoice(int(wanted), [])

    def set_aside_after(self, step: int) -> Path | None:
        """Move checkpoints after `step` out of the way; return where, or None without any.

        A run resumed at an earlier step would otherwise leave them as the newest ones.
        """
        later = [number for number in self.steps() if number > step and _holds(self.path(number))]
        if not later:
            return None
        names = (self.folder / f"{SET_ASIDE}{number}" for number in itertools.count(1))
        aside = next(path for path in names if not os.path.lexists(path))  # on the same disk
        aside.mkdir()
        # The newest first: killed in between, those that stay end with one that they began with.
        for number in reversed(later):
            _move(self.path(number), aside / str(number))
        return aside

    def prune(self, retention: Retention) -> None:
        """Delete old checkpoints; damaged ones don't count, and are left alone.

        Raises:
            OSError: one can't be deleted.
        """
        if retention.max_to_keep is None:
            return
        for step in retention.outdated([step for step in self.steps() if self.complete(step)]):
            # A link is somebody's own work, such as moving old ones to an archive.
            if not self.path(step).is_symlink():
                self._delete(step)

    def remove_leftovers(self) -> None:
        """Delete what killed processes of this run left unfinished.

        Raises:
            OSError: something can't be deleted.
        """
        for path in self.folder.iterdir():
            if path.name.startswith(self._unfinished):
                path.unlink() if path.is_symlink() else shutil.rmtree(path)

    def _draft(self, name: str) -> Path:
        """Return the path of a folder that doesn't count."""
        return self.folder / f"{self._unfinished}{name}"

    def _delete(self, step: int) -> None:
        doomed = self._draft(f"delete-{step}")
        self.path(step).rename(doomed)
        shutil.rmtree(doomed)


def _is_step(path: Path) -> bool:
    """Whether this is a checkpoint, good or damaged, rather than somebody's folder of photos."""
    if not (path.name.isdecimal() and str(int(path.name)) == path.name):
        return False
    if path.is_symlink() and not path.exists():  # to an archive that isn't there now
        return True
    try:
        empty = path.is_dir() and not path.is_symlink() and not any(path.iterdir())
        return path.is_dir() and (empty or _holds(path))
    except OSError:  # deleted meanwhile, or closed: reading it will tell
        return path.exists()


def _holds(path: Path) -> bool:
    """Whether anything of a checkpoint is in a folder, or may be where a link leads."""
    if path.is_symlink() and not path.exists():
        return True
    is_run = (path / CONFIG).exists()  # a run's folder has a `run.json` as well
    return not is_run and any((path / name).exists() for name in (NAME, RECORD, *ITEMS))


def _move(path: Path, to: Path) -> None:
    if path.is_symlink():  # a relative one would lead elsewhere from there
        to.symlink_to(path.parent.absolute() / path.readlink())
        path.unlink()
    else:
        path.rename(to)


def damage_lines(choice: CheckpointChoice) -> list[str]:
    """Return what to tell of the damaged checkpoints that were passed over."""
    lines = [f"the checkpoint of step {step} is damaged: {what}" for step, what in choice.rejected]
    return [*lines, f"falling back to step {choice.step or 0}"] if lines else []


def _listed(steps: list[int]) -> str:
    return ", ".join(map(str, steps)) or "none"
