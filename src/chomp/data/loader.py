"""Batches prepared ahead in the background, each with the state of the stream after it."""

import collections
import concurrent.futures
import copy
import threading
from collections.abc import Callable
from typing import Any

import grain.python as grain

from chomp.types import Batch, LoadedBatch, RowStats

Prepared = tuple[LoadedBatch, dict[str, Any]]

THREAD = "chomp-loader"
CLOSING_SECONDS = 2.0
"""Seconds that closing waits for a read in progress; one that hangs is left to itself."""


class BatchLoader:
    """The end of the pipeline: an iterator over batches whose wait can be cut short.

    Grain's own prefetch waits for its thread without a limit, so a stop signal would not be heard
    while data is late. The state belongs to the batches given out, whatever is prepared ahead.

    Args:
        batches: the chain to draw from, which the loader closes.
        ahead: batches prepared ahead; 0: each is prepared when it is asked for.
    """

    def __init__(self, batches: grain.DatasetIterator[LoadedBatch], ahead: int):
        self._batches, self._depth = batches, ahead
        self.place: Callable[[Batch], Batch] = lambda batch: batch
        """Moves a batch to where it is used; called in the thread."""
        self._state = copy.deepcopy(batches.get_state())
        self._ahead: collections.deque[concurrent.futures.Future[Prepared]] = collections.deque()
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix=THREAD)
        self._end: BaseException | None = None
        self._closed = False

    def __iter__(self) -> "BatchLoader":
        return self

    def __next__(self) -> LoadedBatch:
        """Return the next batch, however long it takes; raises what the stream raised."""
        self._submit(max(1, self._depth))
        drawn, self._state = self._ahead.popleft().result()
        self._submit(self._depth)
        return drawn

    def wait(self, seconds: float) -> bool:
        """Return whether `next` has an answer at once, waiting up to so many seconds for it."""
        self._submit(max(1, self._depth))
        return bool(concurrent.futures.wait([self._ahead[0]], seconds).done)

    def peek(self) -> tuple[RowStats, ...] | None:
        """Return `LoadedBatch.rows` of what `next` will give, without taking it; None at the end.

        Waits as `next` does; raises what it will raise.
        """
        self._submit(max(1, self._depth))
        try:
            return self._ahead[0].result()[0].rows
        except StopIteration:
            return None

    def check(self) -> None:
        """Raise what `next` will raise, if it is known already that there is no batch."""
        if self._ahead and self._ahead[0].done():
            self.peek()

    def start(self) -> None:
        """Begin to prepare batches."""
        self._submit(self._depth)

    def get_state(self) -> dict[str, Any]:
        """Return the data state after the last batch given out."""
        return self._state

    def set_state(self, state: dict[str, Any]) -> None:
        """Go to where `state` was taken; what was prepared is forgotten."""
        self._forget(None)
        self._batches.set_state(state)
        self._state, self._end = copy.deepcopy(state), None

    def close(self) -> None:
        """Stop the thread and close the chain."""
        if self._closed:
            return
        self._closed = True
        ended = self._forget(CLOSING_SECONDS)
        self._thread.shutdown(wait=ended, cancel_futures=True)
        self._batches.close()

    def _submit(self, count: int) -> None:
        if self._closed:
            raise ValueError("the data is closed")
        while len(self._ahead) < count:
            self._ahead.append(self._thread.submit(self._prepare))

    def _prepare(self) -> Prepared:
        if self._end is not None:  # an iterator that has raised is not asked again
            raise self._end
        try:
            drawn = next(self._batches)
        except BaseException as end:
            self._end = end
            raise
        return drawn._replace(batch=self.place(drawn.batch)), copy.deepcopy(
            self._batches.get_state()
        )

    def _forget(self, seconds: float | None) -> bool:
        """Drop what was prepared; return whether the read in progress ended in so many seconds."""
        running = [future for future in self._ahead if not future.cancel()]
        self._ahead.clear()
        return not concurrent.futures.wait(running, seconds).not_done


def is_stuck() -> bool:
    """Return whether a closed loader's thread still hangs in a read."""
    return any(thread.name.startswith(THREAD) for thread in threading.enumerate())
