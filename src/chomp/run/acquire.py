"""Taking a run folder: one process at a time, and the same folder for all processes of the run."""

import os
import socket
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from chomp.coordinator import Coordinator
from chomp.errors import ResumeError
from chomp.run.heartbeat import read_heartbeat
from chomp.run.liveness import is_running
from chomp.run.record import read_record
from chomp.run.run_folder import RunFolder
from chomp.system.folder_lock import FolderLock

NO_LOCK = (
    "its file system has no locks, so that nothing keeps a second process out but its heartbeat: "
    "start none"
)


class AcquiredFolder(NamedTuple):
    """The run folder, as all processes name it."""

    folder: RunFolder
    lock: FolderLock | None
    """Only the leader's."""
    warnings: list[str]


def acquire_folder(
    folder: RunFolder, resume: str | None, coordinator: Coordinator, resources: ExitStack
) -> AcquiredFolder:
    """Have the leader make or find the run folder and lock it.

    Raises:
        ResumeError: it can't be had, or isn't the same for all.
    """
    mine: list[RunFolder] = []
    locks: list[FolderLock] = []

    def take() -> list[Any]:
        if resume:
            folder.require_run(or_empty=True)
        mine.append(folder if resume else folder.claim())
        lock = resources.enter_context(mine[0].lock())
        if not resume:
            try:
                mine[0].check_free(lock)
            except ResumeError:
                lock.leave_no_trace()
                raise
        if not (lock.held and lock.was_there):
            refuse_running(mine[0])
        path = mine[0].path
        warnings = [] if lock.held else [f"{path}: {NO_LOCK}"]
        locks.append(lock)
        alone = coordinator.size == 1
        return [*([str(path), ""] if alone else [str(path.absolute()), lock.mark()]), warnings]

    path, mark, warnings = coordinator.on_leader("run folder", take)
    if not coordinator.is_leader:
        mine.append(RunFolder(Path(path)))
        mine[0].check_shared(mark)
    return AcquiredFolder(mine[0], next(iter(locks), None), warnings)


def refuse_running(folder: RunFolder) -> None:
    """Look at the heartbeat where the lock says nothing: it can't be had, or was removed.

    Raises:
        ResumeError: another process is training.
    """
    reading = read_heartbeat(folder.heartbeat)
    try:
        record = read_record(folder.record)
    except ValueError:
        record = None
    host = record.starts[-1].host if record and record.starts else None
    ended = reading is None or (reading.pid, host) == (os.getpid(), socket.gethostname())
    if reading and not ended and is_running(reading, host, time.time()):
        raise ResumeError(
            f"another process is training in {folder.path}: number {reading.pid} on "
            f"{host or 'this host'}, by its heartbeat; wait for its end, or stop it"
        )
