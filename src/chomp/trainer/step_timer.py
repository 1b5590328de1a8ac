"""Time per step, without the time of what isn't training."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple


class Lap(NamedTuple):
    """A stretch of training between two readings."""

    seconds: float
    """Wall time of the stretch, pauses left out."""
    waiting: float
    """Of these, seconds spent waiting for data."""


def _ignore(doing: str) -> None:
    pass


class StepTimer:
    """Measures laps; `paused` takes evaluation, sampling and saving out of them.

    Args:
        tell: is told what the run is doing, whenever that changes or gets on.
    """

    def __init__(self, tell: Callable[[str], None] = _ignore):
        self._tell, self._doing = tell, "starting"
        self.total_waiting = 0.0
        self._restart()

    def _restart(self) -> None:
        self._start = time.perf_counter()
        self._paused = self._waiting = 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time inside as waiting for data."""
        start = time.perf_counter()
        self._do("waiting")
        yield
        self._do("training")
        seconds = time.perf_counter() - start
        self._waiting += seconds
        self.total_waiting += seconds

    @contextmanager
    def paused(self, doing: str) -> Iterator[None]:
        """Leave the time inside out of the lap. The device must be idle at the start."""
        start = time.perf_counter()
        self._do(doing)
        try:
            yield
        finally:
            self._do("training")
            self._paused += time.perf_counter() - start

    def alive(self) -> None:
        """Tell that what the run is doing goes on."""
        self._tell(self._doing)

    def _do(self, doing: str) -> None:
        self._doing = doing
        self._tell(doing)

    def lap(self) -> Lap:
        """Return the lap so far and begin the next. The device must be idle."""
        seconds = time.perf_counter() - self._start - self._paused
        lap = Lap(max(seconds, 1e-9), self._waiting)
        self._restart()
        return lap
