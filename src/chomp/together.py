"""The start of a run in all its processes: they meet, and one of them takes folder and console."""

import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from chomp.cohort import Cohort
from chomp.config import Config
from chomp.identity import ENVIRONMENT, flat, package_versions
from chomp.parallel import Place, join
from chomp.run_folder import RunFolder
from chomp.runtime import numeric_environment
from chomp.signals import Signals
from chomp.tracking import NoConsole, PlainConsole, open_console


def meet(place: Place | None, config: Config, signals: Signals, resources: ExitStack) -> Cohort:
    """Meet the other processes of the run, if there are any; left at the end of `resources`.

    Raises:
        ConfigError: they can't be met, or not in time.
        Interrupted: a stop was asked for meanwhile.
    """
    if place is None:
        return Cohort()
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


def take_folder(
    folder: RunFolder, resume: str | None, cohort: Cohort, resources: ExitStack
) -> RunFolder:
    """Have the leader make or find the run folder and lock it; return it as all name it.

    Raises:
        ResumeError: it can't be had, or isn't the same for all.
    """

    def take() -> list[str]:
        if resume:
            folder.require_run()
        else:
            folder.claim()
        resources.enter_context(folder.lock())
        return [] if cohort.size == 1 else [str(folder.path.absolute()), folder.mark()]

    taken = cohort.from_leader("run folder", take)
    if cohort.is_leader:
        return folder
    path, mark = taken
    shared = RunFolder(Path(path))
    shared.check_shared(mark)
    return shared


def console_of(config: Config, cohort: Cohort, steps: int | None = None) -> PlainConsole:
    """Return the console, which the leader alone has."""
    if not cohort.is_leader:
        return NoConsole()
    return open_console(steps=steps or config.train.steps, use_rich=config.logging.console_use_rich)


def line_of(process: int) -> Callable[[str], None]:
    """Return what prints a line about a process without console."""
    return lambda line: print(f"process {process}: {line}", file=sys.stderr, flush=True)


def log_path_of(config: Config, folder: RunFolder, cohort: Cohort) -> Path | None:
    """Return the path of the process's own log."""
    if config.logging.log_file is None:
        return None
    path = folder.inside(config.logging.log_file)
    return path if cohort.is_leader else path.with_suffix(f".process-{cohort.index}{path.suffix}")
