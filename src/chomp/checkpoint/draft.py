"""A checkpoint that is being written."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from chomp.checkpoint.arrays import (
    Flat,
    check_index,
    finish,
    make_folders,
    write_items,
    write_share,
)
from chomp.checkpoint.contents import RECORD
from chomp.checkpoint.disk import DISK_ERRORS, reason
from chomp.checkpoint.manifest import write_manifest
from chomp.coordinator import Coordinator
from chomp.system.atomic_file import sync_folder
from chomp.types import Progress


class Draft(NamedTuple):
    """A checkpoint in a folder that doesn't count, until all is in it."""

    folder: Path
    """Is alone in its parent, and made with it."""
    progress: Progress
    items: dict[str, Flat]
    """The arrays, in the memory of the host."""
    record: str
    """The text of all else."""

    def write(self, path: Path, coordinator: Coordinator) -> None:
        """Write everything, and give it the folder `path`; all processes call this.

        Raises:
            OSError, ValueError, RuntimeError: one of them can't write; in all of them. What was
                written is deleted.
        """
        try:
            if coordinator.size == 1:
                self.folder.mkdir(parents=True)
                write_items(self.folder, self.items)
                self._complete(path)
            else:
                self._write_together(path, coordinator)
        except DISK_ERRORS:
            if coordinator.is_leader:
                _clear(self.folder.parent)
            raise

    def _write_together(self, path: Path, coordinator: Coordinator) -> None:
        leads = coordinator.is_leader
        with _done_by_all("folders", coordinator):
            if leads:
                make_folders(self.folder, self.items)
        with _done_by_all("arrays", coordinator):
            write_share(self.folder, self.items)
        with _done_by_all("parts put together", coordinator):
            if leads:
                finish(self.folder, self.items)
        with _done_by_all("manifest", coordinator):
            if leads:
                self._complete(path)

    def _complete(self, path: Path) -> None:
        check_index(self.folder, self.items)
        (self.folder / RECORD).write_text(self.record, encoding="utf-8")
        write_manifest(self.folder, self.progress.step, self.progress.tokens_seen)
        self.folder.rename(path)
        self.folder.parent.rmdir()
        sync_folder(path.parent)


@contextmanager
def _done_by_all(name: str, coordinator: Coordinator) -> Iterator[None]:
    """Wait until all processes are through what is inside.

    Raises:
        OSError: the disk refused one of them; in all of them.
    """
    problem = None
    try:
        yield
    except DISK_ERRORS as error:
        problem = reason(error)
    problems = coordinator.gather_and_decide(name, problem, channel="save")
    if found := next(filter(None, problems), None):
        raise OSError(f"process {problems.index(found)}: {found}")


def _clear(folder: Path) -> None:
    """Delete what a failed save has written, as far as the disk lets it."""
    # One of TensorStore's threads fails first; the others may still be making files.
    for _ in range(20):
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.05)
        if not folder.exists():
            return
