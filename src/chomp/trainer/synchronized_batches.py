"""The batches of a run with several processes: all draw, stop and save at the same step."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from chomp.coordinator import Coordinator
from chomp.data import combine
from chomp.errors import DataError, NetworkError
from chomp.trainer.stop_and_save import StopAndSaveRequests, StopOrSaveRequest
from chomp.types import BatchStats, LoadedBatch


class LocalBatches(Protocol):
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


class SynchronizedBatches:
    """A stream of batches whose answers are the same in all processes.

    Before each batch every process says what it has and what it was asked for; the leader decides.
    A stop is thus acted on before the same batch by all, and the loop's question whether to stop
    has one answer everywhere. Nobody's batch is drawn if somebody has none.

    Args:
        coordinator: the processes.
        batches: this process's part of the batches.
        padding: makes a part without documents, for a process whose documents have ended before
            others'.
        requests: to this process; gets what all act on.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        batches: LocalBatches,
        padding: Callable[[], LoadedBatch],
        requests: StopAndSaveRequests,
    ):
        self._coordinator, self._batches = coordinator, batches
        self._padding, self._requests = padding, requests
        self._error: DataError | None = None
        self._has_part, self._stats = False, None
        self._stopping = False
        self.save_requested = False
        """Whether a checkpoint is wanted after the step of the batch drawn last."""

    def should_stop(self) -> bool:
        """Whether all stop now."""
        return self._stopping

    def agree_to_stop(self) -> bool:
        """Ask all whether to stop, at a place that all come to."""
        self._take(
            StopOrSaveRequest(
                self._coordinator.gather_and_decide(
                    "stop?", self._requests.own().stop, decide=_first
                )
            )
        )
        return self._stopping

    def wait(self, seconds: float) -> bool:
        """Return whether all have an answer to `next`, waiting so long for this process's part."""
        ready = self._batches.wait(seconds)
        request = self._requests.own()
        self._coordinator.check()
        if not ready and request.stop is None:
            return False
        rows = self._peek() if ready else None
        self._has_part = rows is not None
        part = {
            "rows": rows,
            "error": self._error and [str(self._error), isinstance(self._error, NetworkError)],
            "request": request,
        }
        decided = self._coordinator.gather_and_decide("batch", part, decide=self._decide)
        self._take(StopOrSaveRequest(*decided["request"]))
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
        drawn = next(self._batches) if self._has_part else self._padding()
        return drawn._replace(stats=BatchStats.from_json(self._stats))

    def _peek(self) -> Sequence[Any] | None:
        try:
            return self._batches.peek()
        except DataError as error:
            self._error = error
            return None

    def _take(self, request: StopOrSaveRequest) -> None:
        self._stopping = request.stop is not None
        self.save_requested = request.save or request.signalled
        self._requests.accept(request)

    def _decide(self, parts: list[dict[str, Any]]) -> dict[str, Any]:
        errors = (
            [f"process {index}: {part['error'][0]}", part["error"][1]]
            for index, part in enumerate(parts)
            if part["error"]
        )
        error = next(errors, None)
        stops, *saves = zip(*(part["request"] for part in parts), strict=True)
        request = StopOrSaveRequest(_first(stops), *map(any, saves))
        rows = [part["rows"] for part in parts if part["rows"] is not None]
        goes_on = rows and request.stop is None and error is None
        return {
            "request": request,
            "error": error,
            "stats": combine(rows) if goes_on else None,
        }


def _first(values: Iterable[int | None]) -> int | None:
    return next((value for value in values if value is not None), None)
