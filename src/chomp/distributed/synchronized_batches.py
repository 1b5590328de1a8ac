"""The batches of a run with several processes: all draw, stop and save at the same step."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from chomp.coordinator import Coordinator
from chomp.errors import DataError, NetworkError
from chomp.types import BatchStats, LoadedBatch


class Feed(Protocol):
    """This process's part of the batches."""

    def wait(self, seconds: float) -> bool:
        """Return whether `next` answers at once."""
        ...

    def peek(self) -> Sequence[Any] | None:
        """Return what the rows of the next part hold; None at the end."""
        ...

    def __next__(self) -> LoadedBatch:
        """Return the next part."""
        ...


class StopOrSaveRequest(NamedTuple):
    """What this process would like."""

    stop: int | None = None
    """The signal that asks for a stop."""
    save: bool = False
    """A checkpoint behind the next step: its minutes are over."""
    signalled: bool = False
    """A checkpoint behind the next step: a signal asks for one."""


class SynchronizedBatches:
    """A stream for the training loop whose answers are the same in all processes.

    Before each batch every process says what it has and what it was asked for; the leader decides.
    A stop is thus acted on before the same batch by all, and the loop's question whether to stop
    has one answer everywhere. Nobody's batch is drawn if somebody has none.

    Args:
        cohort: the processes.
        feed: this process's part of the batches.
        combine: makes the stats of a batch of what the parts' rows hold.
        padding: a part without documents, for a process whose documents have ended before others'.
        wish: what this process was asked for.
        heed: takes what all do.
    """

    def __init__(
        self,
        cohort: Coordinator,
        feed: Feed,
        *,
        combine: Callable[[Iterable[Any]], BatchStats],
        padding: Callable[[], LoadedBatch],
        wish: Callable[[], StopOrSaveRequest],
        heed: Callable[[StopOrSaveRequest], None],
    ):
        self._cohort, self._feed, self._combine, self._padding = cohort, feed, combine, padding
        self._wish, self._heed = wish, heed
        self._error: DataError | None = None
        self._has_part, self._stats = False, None
        self._stopping = False
        self.save_asked = False
        """Whether a checkpoint is wanted behind the step of the batch drawn last."""

    def should_stop(self) -> bool:
        """Whether all stop now."""
        return self._stopping

    def agree_to_stop(self) -> bool:
        """Ask all whether to stop, at a place that all come to."""
        self._take(
            StopOrSaveRequest(self._cohort.exchange("stop?", self._wish().stop, decide=_first))
        )
        return self._stopping

    def wait(self, seconds: float) -> bool:
        """Return whether all have an answer to `next`, waiting so long for this process's part."""
        ready = self._feed.wait(seconds)
        wish = self._wish()
        self._cohort.check()
        if not ready and wish.stop is None:
            return False
        rows = self._peek() if ready else None
        self._has_part = rows is not None
        part = {
            "rows": rows,
            "error": self._error and [str(self._error), isinstance(self._error, NetworkError)],
            "wish": wish,
        }
        decided = self._cohort.exchange("batch", part, decide=self._decide)
        self._take(StopOrSaveRequest(*decided["wish"]))
        if self._stopping:
            return False
        self._stats = decided["stats"]
        if decided["error"] and self._error is None:
            message, network = decided["error"]
            self._error = NetworkError(message) if network else DataError(message)
        return True

    def __next__(self) -> LoadedBatch:
        """Return this process's part, with the stats of the whole batch."""
        if self._error:
            raise self._error
        if self._stats is None:
            raise StopIteration
        drawn = next(self._feed) if self._has_part else self._padding()
        return drawn._replace(stats=_as_stats(self._stats))

    def _peek(self) -> Sequence[Any] | None:
        try:
            return self._feed.peek()
        except DataError as error:
            self._error = error
            return None

    def _take(self, wish: StopOrSaveRequest) -> None:
        self._stopping = wish.stop is not None
        self.save_asked = wish.save or wish.signalled
        self._heed(wish)

    def _decide(self, parts: list[dict[str, Any]]) -> dict[str, Any]:
        errors = (
            [f"process {index}: {part['error'][0]}", part["error"][1]]
            for index, part in enumerate(parts)
            if part["error"]
        )
        error = next(errors, None)
        stops, *saves = zip(*(part["wish"] for part in parts), strict=True)
        wish = StopOrSaveRequest(_first(stops), *map(any, saves))
        rows = [part["rows"] for part in parts if part["rows"] is not None]
        goes_on = rows and wish.stop is None and error is None
        return {
            "wish": wish,
            "error": error,
            "stats": self._combine(rows) if goes_on else None,
        }


def _first(values: Iterable[int | None]) -> int | None:
    return next((value for value in values if value is not None), None)


def _as_stats(values: Sequence[Any]) -> BatchStats:
    stats = BatchStats(*values)
    return stats._replace(keys=tuple(stats.keys))
