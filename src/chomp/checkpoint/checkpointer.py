"""Saving and restoring a whole run: parameters, optimizer, data position, counts."""

import json
import secrets
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax

from chomp.checkpoint.arrays import (
    Flat,
    by_path,
    copy_to_host,
    join,
    read_item,
    shapes,
    split,
    unflatten,
)
from chomp.checkpoint.contents import AVERAGE, PARAMS, RECORD
from chomp.checkpoint.directory import CheckpointDirectory, Retention
from chomp.checkpoint.disk import DISK_ERRORS, EXTRA, check_room, free_bytes, megabytes, reason
from chomp.checkpoint.draft import Draft
from chomp.coordinator import Coordinator
from chomp.errors import DamagedError, DiskError, ResumeError
from chomp.system.json_text import parse_json
from chomp.types import Progress, TrainState


class SavedRun(NamedTuple):
    """The contents of a checkpoint besides arrays."""

    progress: Progress
    data_state: dict[str, Any]
    meta: dict[str, Any]
    """Configuration, versions and fingerprints of the run that saved it."""


class Watch(Protocol):
    """Looks at work beside the training, as a heartbeat does."""

    def background(self, name: str, step: int) -> AbstractContextManager[None]:
        """Look at work of this name, for a step, while inside."""
        ...


class NoWatch:
    """Looks at nothing."""

    def background(self, name: str, step: int) -> AbstractContextManager[None]:
        """Do nothing."""
        return nullcontext()


class Checkpointer(CheckpointDirectory):
    """A folder of checkpoints to save to and restore from.

    A save never raises because of the disk: what went wrong is told by `problems`, and the next
    save tries again.

    Args:
        folder: the checkpoints' folder; may hold other things, which are left alone.
        owner: name of the run that writes here, the same in all its processes, and no other's;
            None: a new one.
        max_to_keep: newest ones to keep; None: all.
        keep_every: steps divisible by it are kept for good; 0: none.
        async_save: write in the background.
        watch: looks at checkpoints while they are written; None: nobody does.
        coordinator: the processes that share the arrays, all of which save and restore; each needs
            the folder at this path. None: there is only this one.
    """

    def __init__(
        self,
        folder: Path,
        *,
        owner: str | None = None,
        max_to_keep: int | None = None,
        keep_every: int = 0,
        async_save: bool = False,
        watch: Watch | None = None,
        coordinator: Coordinator | None = None,
    ):
        self._async_save, self._watch = async_save, watch or NoWatch()
        self._coordinator = coordinator or Coordinator()
        # All processes write one draft.
        name = owner or self._coordinator.on_leader("name of drafts", lambda: secrets.token_hex(8))
        super().__init__(folder, name)
        self._retention = Retention(max_to_keep, keep_every)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None
        self._problems: list[str] = []
        self._last_good: int | None = None
        self._made = False

    @property
    def last_good(self) -> int | None:
        """The step saved or resumed last, whole and on the disk; None before the first one."""
        return self._last_good

    def problems(self) -> list[str]:
        """Return what went wrong since the last call, a line each; doesn't wait."""
        # One by one: the writer may add some meanwhile.
        return [self._problems.pop(0) for _ in range(len(self._problems))]

    def prepare(self, like: TrainState) -> str | None:
        """Make the folder ready for saving states like this one (shapes suffice).

        Returns:
            A warning if the disk has room for fewer checkpoints than shall be kept.

        Raises:
            DiskError: the folder can't be written to, or two checkpoints don't fit.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._made = True
            self.remove_leftovers()
            self._draft("test").mkdir()
            self.remove_leftovers()
        except OSError as error:
            raise DiskError(
                f"{self.folder} can't be written to ({error.strerror}); set checkpoint.root_dir "
                "to another folder, or make this one writable"
            ) from error
        held = sum(m.bytes for step in self.steps() if (m := self.complete(step)))
        size = self._expected_bytes(split(like))
        wanted = self._retention.max_to_keep or len(self.steps())
        return check_room(self.folder, held=held, size=size, max_to_keep=wanted)

    def save(
        self,
        state: TrainState,
        progress: Progress,
        data_state: dict[str, Any],
        meta: dict[str, Any],
    ) -> None:
        """Save, in the background if the folder was opened so; the state may be donated at once.

        Waits for a save that is still being written. A step that is there already isn't saved
        again.
        """
        self.wait()
        items = split(state)
        there, problem = self._coordinator.on_leader(
            "room", lambda: self._before(progress.step, items)
        )
        if there:
            self._last_good = progress.step
            return
        if problem:
            self._report(progress.step, problem)
            return
        record = json.dumps({"progress": progress._asdict(), "data": data_state, "meta": meta})
        folder = self._draft(str(progress.step)) / str(progress.step)
        draft = Draft(folder, progress, copy_to_host(items), record)
        self._pending = self._writer.submit(self._write, draft)
        if not self._async_save:
            self.wait()

    def wait(self) -> None:
        """Wait for a save in the background."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """Wait for a save in the background, and end its thread."""
        self.wait()
        self._writer.shutdown()

    def restore_run(self, step: int) -> SavedRun:
        """Read what is small: counts, data position and the configuration of the saving run."""
        path = self.path(step) / RECORD
        try:
            record = parse_json(path.read_text(encoding="utf-8"))
            saved = SavedRun(Progress(**record["progress"]), record["data"], record["meta"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DamagedError(
                f"{path} can't be used ({error!r}); was it saved by another version? resume "
                "another step, or with the version that saved it"
            ) from error
        self._last_good = step
        return saved

    def restore_state(self, step: int, like: TrainState) -> TrainState:
        """Return the saved state, its arrays shaped and placed as in `like` (shapes suffice).

        Without an average where none was saved.
        """
        items = split(like)
        if not self.has_average(step):
            items.pop(AVERAGE, None)
        path = self.path(step)
        return join(like, {name: read_item(path, name, item) for name, item in items.items()})

    def has_average(self, step: int) -> bool:
        """Return whether averaged parameters were saved."""
        return (self.path(step) / AVERAGE).is_dir()

    def restore_params(self, step: int, like: Any, *, average: bool = False) -> Any:
        """Return the saved parameters alone, or their average, shaped as in `like`."""
        item = AVERAGE if average else PARAMS
        return unflatten(like, read_item(self.path(step), item, by_path(like)))

    def check_shapes(self, step: int, like: Any) -> None:
        """Check that the saved parameters have the paths and shapes of `like`.

        Raises:
            ResumeError: they don't; names the first difference.
        """
        saved = shapes(self.path(step), PARAMS)
        wanted = {name: tuple(leaf.shape) for name, leaf in by_path(like).items()}
        for name in sorted(saved.keys() | wanted.keys()):
            if saved.get(name) != wanted.get(name):
                raise ResumeError(
                    f"the parameter {name} has shape {saved.get(name)} in the checkpoint of step "
                    f"{step} and {wanted.get(name)} in this configuration: a changed model can't "
                    "go on with it; put the old values back, or start a new run in another folder"
                )

    def _expected_bytes(self, items: dict[str, Flat]) -> int:
        for step in reversed(self.steps()):
            if manifest := self.complete(step):
                return manifest.bytes
        leaves = jax.tree.leaves(items)
        return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves) + EXTRA

    def _before(self, step: int, items: dict[str, Flat]) -> tuple[bool, str | None]:
        """Return whether the step is saved already, and why a save needn't be tried."""
        there = self.complete(step) is not None
        return there, None if there else self._obstacle(items)

    def _obstacle(self, items: dict[str, Flat]) -> str | None:
        """Return why a save needn't be tried."""
        try:
            if self._made and not self.folder.is_dir():
                self._problems.append(f"{self.folder} is gone, and the checkpoints in it")
                self._last_good = None
            self.folder.mkdir(parents=True, exist_ok=True)
            self._made = True
            self.remove_leftovers()
            free, needed = free_bytes(self.folder), self._expected_bytes(items)
        except OSError as error:
            return reason(error)
        if free < needed:
            return f"it needs about {megabytes(needed)}, {megabytes(free)} are free"
        return None

    def _report(self, step: int, problem: str) -> None:
        self._problems.append(
            f"checkpoint of step {step} not saved: {problem} ({self.folder}); "
            "the next save tries again"
        )

    def _write(self, draft: Draft) -> None:
        """Write a checkpoint and delete old ones; runs in the thread of the writer."""
        step = draft.progress.step
        with self._watch.background("saving", step):
            try:
                draft.write(self.path(step), self._coordinator)
            except DISK_ERRORS as error:
                self._report(step, reason(error))
                return
            self._last_good = step
            try:
                if self._coordinator.is_leader:
                    self.prune(self._retention)
            except OSError as error:
                self._problems.append(f"old checkpoints can't be deleted: {reason(error)}")
