"""Trackers of the user's own."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from chomp.config.registry import TRACKERS
from chomp.tracking.tracker import Tracker


class TrackedRun(NamedTuple):
    """What a tracker is told about its run."""

    folder: Path
    """The run folder."""
    config: dict[str, Any]
    """All values of the configuration."""
    step: int
    """The run goes on after this step: rows of later ones, if there are any, are void."""


def register_tracker(name: str, make: Callable[[TrackedRun], Tracker]) -> None:
    """Let `logging.trackers` name a tracker.

    Args:
        name: that stands for it.
        make: makes one, in the process that writes the run's files; at the run's start, and again
            where it goes back to an earlier step.

    Raises:
        ConfigError: the name can't be registered.
    """
    TRACKERS.register(name, make)


def open_trackers(names: Sequence[str], run: TrackedRun) -> list[Tracker]:
    """Make the registered trackers of these names."""
    return [TRACKERS[name](run) for name in names]
