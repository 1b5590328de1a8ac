"""The trackers that a configuration asks for: what they need, and how they are opened."""

from collections.abc import Callable
from functools import partial

from chomp.config import LoggingConfig
from chomp.config.registry import TRACKERS
from chomp.errors import ConfigError
from chomp.system.console import Console
from chomp.system.extras import EXTRAS, require_package
from chomp.tracking.guarded import BackgroundTracker, GuardedTracker, one_line
from chomp.tracking.mlflow import MlflowTracker
from chomp.tracking.registered import TrackedRun
from chomp.tracking.tensorboard import TensorBoardTracker
from chomp.tracking.tracker import Tracker
from chomp.tracking.wandb import WandbTracker, require_wandb


def chosen_trackers(logging: LoggingConfig) -> list[str]:
    """Return the names of the trackers, without `jsonl`, which every run has."""
    names = [*logging.trackers, *(["wandb"] if logging.wandb.enabled else [])]
    return [name for name in dict.fromkeys(names) if name != "jsonl"]


def missing_trackers(logging: LoggingConfig) -> list[str]:
    """Return a line for each tracker whose package isn't installed, with what to install."""
    problems: list[str] = []
    for name in chosen_trackers(logging):
        try:
            if name == "wandb":
                require_wandb("logging.trackers" if name in logging.trackers else None)
            elif name in EXTRAS:
                require_package(name, f"logging.trackers: {name}")
        except ConfigError as error:
            problems += error.problems
    return problems


def open_trackers(logging: LoggingConfig, run: TrackedRun, console: Console) -> list[Tracker]:
    """Open the trackers; none of them can end the run later.

    Raises:
        ConfigError: one can't be opened, at a start; later it is left out, with a warning.
    """
    opened: list[Tracker] = []
    for name in chosen_trackers(logging):
        try:
            opened.append(_open(name, logging, run, console))
        except Exception as error:
            if not run.going_back:
                raise
            console.warn(f"tracker {name}: {one_line(error)}; the run goes on without it")
    return opened


def _open(name: str, logging: LoggingConfig, run: TrackedRun, console: Console) -> Tracker:
    if name == "mlflow":
        make = partial(MlflowTracker, logging.mlflow, logging.project, run)
        return BackgroundTracker(name, make, console)
    own: dict[str, Callable[[], Tracker]] = {
        "tensorboard": partial(TensorBoardTracker, run),
        "wandb": partial(WandbTracker, logging.wandb, logging.project, run),
    }
    make = own.get(name) or partial(TRACKERS[name], run)
    return GuardedTracker(name, make(), console)
