"""The start of a run in all its processes: they meet, and one of them takes folder and console."""

import os
import socket
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from chomp.checkpoint.compatibility import ENVIRONMENT, flat, package_versions
from chomp.config import Config
from chomp.coordinator import Coordinator
from chomp.distributed import ProcessInfo, join
from chomp.errors import ResumeError
from chomp.run.heartbeat import read_heartbeat
from chomp.run.liveness import is_running
from chomp.run.record import read_record
from chomp.run.run_folder import RunFolder
from chomp.system.folder_lock import FolderLock
from chomp.system.jax_runtime import numeric_environment
from chomp.system.signals import Signals
from chomp.tracking import NoConsole, PlainConsole, open_console


def meet(
    place: ProcessInfo | None, config: Config, signals: Signals, resources: ExitStack
) -> Coordinator:
    """Meet the other processes of the run, if there are any; left at the end of `resources`.

    Raises:
        ConfigError: they can't be met, or not in time.
        Interrupted: a stop was asked for meanwhile.
    """
    if place is None:
        return Coordinator()
    seconds, lost_after = config.parallel.join_seconds, config.parallel.lost_after_seconds
    cohort = signals.unless_stopped(lambda: join(place, seconds=seconds, lost_after=lost_after))
    resources.push(lambda kind, error, trace: cohort.end(error))
    cohort.hooks.stop_asked = lambda: signals.stop
    cohort.hooks.ask_to_stop = signals.hear
    return cohort


def settings(config: Config) -> dict[str, Any]:
    """Return what all processes of a run must have alike."""
    versions = {f"version of {name}": number for name, number in package_versions().items()}
    return flat(config.model_dump(mode="json") | {ENVIRONMENT: numeric_environment()}) | versions


class Taken(NamedTuple):
    """The run folder, as all processes name it."""

    folder: RunFolder
    lock: FolderLock | None
    """Only the leader's."""
    warnings: list[str]


def take_folder(
    folder: RunFolder, resume: str | None, cohort: Coordinator, resources: ExitStack
) -> Taken:
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
        alone = cohort.size == 1
        return [*([str(path), ""] if alone else [str(path.absolute()), lock.mark()]), warnings]

    path, mark, warnings = cohort.from_leader("run folder", take)
    if not cohort.is_leader:
        mine.append(RunFolder(Path(path)))
        mine[0].check_shared(mark)
    return Taken(mine[0], next(iter(locks), None), warnings)


NO_LOCK = (
    "its file system has no locks, so that nothing keeps a second process out but its heartbeat: "
    "start none"
)


def refuse_running(folder: RunFolder) -> None:
    """Look at the heartbeat where the lock says nothing: it can't be had, or was removed.

    Raises:
        ResumeError: another process is training.
    """
    beat = read_heartbeat(folder.heartbeat)
    try:
        record = read_record(folder.record)
    except ValueError:
        record = None
    host = record.starts[-1].host if record and record.starts else None
    ended = beat is None or (beat.pid, host) == (os.getpid(), socket.gethostname())
    if beat and not ended and is_running(beat, host, time.time()):
        raise ResumeError(
            f"another process is training in {folder.path}: number {beat.pid} on "
            f"{host or 'this host'}, by its heartbeat; wait for its end, or stop it"
        )


def console_of(config: Config, cohort: Coordinator, steps: int | None = None) -> PlainConsole:
    """Return the console, which the leader alone has."""
    if not cohort.is_leader:
        return NoConsole()
    return open_console(steps=steps or config.train.steps, use_rich=config.logging.console_use_rich)


def line_of(process: int) -> Callable[[str], None]:
    """Return what prints a line about a process without console."""
    return lambda line: print(f"process {process}: {line}", file=sys.stderr, flush=True)


def log_path_of(config: Config, folder: RunFolder, cohort: Coordinator) -> Path | None:
    """Return the path of the process's own log."""
    if config.logging.log_file is None:
        return None
    path = folder.inside(config.logging.log_file)
    return path if cohort.is_leader else path.with_suffix(f".process-{cohort.index}{path.suffix}")
