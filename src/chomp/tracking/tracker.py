"""Trackers, which take a run's rows, samples and messages; one hands each to all others."""

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Protocol

Row = dict[str, Any]


def numbers(row: Row) -> dict[str, float]:
    """Return a row's numbers by their keys, without the step."""
    return {
        key: float(value)
        for key, value in row.items()
        if key != "step" and isinstance(value, int | float)
    }


class Tracker(Protocol):
    """Something that takes reports."""

    def log(self, row: Row) -> None:
        """Take a row of metrics; it has `step`."""
        ...

    def sample(self, record: Row) -> None:
        """Take a generated sample: `step`, `prompt` and `continuation`."""
        ...

    def progress(self, step: int) -> None:
        """Take notice that `step` is finished."""
        ...

    def message(self, text: str) -> None:
        """Take a line for the user."""
        ...

    def close(self) -> None:
        """Write out what is held back."""
        ...


class NullTracker:
    """A tracker that ignores everything; others override what they care about."""

    def log(self, row: Row) -> None:
        """Ignore a row."""

    def sample(self, record: Row) -> None:
        """Ignore a sample."""

    def progress(self, step: int) -> None:
        """Ignore progress."""

    def message(self, text: str) -> None:
        """Ignore a message."""

    def close(self) -> None:
        """Hold nothing."""


class LatestMetrics(NullTracker):
    """Keeps the newest value of every metric, and as `eval_step` the step of the evaluation's."""

    def __init__(self):
        self.values: Row = {}

    def log(self, row: Row) -> None:
        """Take over the row's values."""
        self.values |= row
        if "eval_loss" in row:
            self.values["eval_step"] = row["step"]


class MultiTracker:
    """Hands each report to all trackers, in order; an error that ends the run leaves a last row."""

    def __init__(self, trackers: Sequence[Tracker], step: int):
        self._trackers, self._step = list(trackers), step

    def __enter__(self) -> "MultiTracker":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.log({"step": self._step, "error": kind.__name__, "reason": str(error)})
        self.close()

    def log(self, row: Row) -> None:
        """Report a row of metrics."""
        for tracker in self._trackers:
            tracker.log(row)

    def sample(self, record: Row) -> None:
        """Report a generated sample."""
        for tracker in self._trackers:
            tracker.sample(record)

    def progress(self, step: int) -> None:
        """Report that `step` is finished."""
        self._step = step
        for tracker in self._trackers:
            tracker.progress(step)

    def message(self, text: str) -> None:
        """Report a line for the user."""
        for tracker in self._trackers:
            tracker.message(text)

    def close(self) -> None:
        """Close all trackers, the last one first."""
        for tracker in reversed(self._trackers):
            tracker.close()
