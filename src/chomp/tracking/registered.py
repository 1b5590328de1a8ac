"""Trackers of the user's own."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from chomp.config.registry import TRACKERS
from chomp.system.json_text import parse_json
from chomp.tracking.jsonl import rows_up_to
from chomp.tracking.tracker import Row, Tracker


class TrackedRun(NamedTuple):
    """What a tracker is told about its run."""

    folder: Path
    """The run folder."""
    config: dict[str, Any]
    """All values of the configuration."""
    step: int
    """The run goes on after this step: rows of later ones, if there are any, are void."""
    metrics: Path
    """The file of metrics, which holds the rows up to there."""
    going_back: bool = False
    """It has gone back from a divergence, and isn't just starting."""
    outdated: bool = False
    """Rows of later steps were reported, and the new ones will have other values."""

    def rows(self) -> Iterator[Row]:
        """Yield the rows up to the step, for a tracker that doesn't have them."""
        yield from map(parse_json, rows_up_to(self.step, self.metrics))


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
