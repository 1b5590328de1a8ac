"""What is asked of a run from outside, stops and saves, heeded by all its processes alike."""

import time
from collections.abc import Callable
from typing import TypeVar

from chomp.coordinator import Coordinator
from chomp.data import Data, combine
from chomp.distributed import StopOrSaveRequest, SynchronizedBatches
from chomp.system.signals import Signals

T = TypeVar("T")


class SaveTimer:
    """When a checkpoint is wanted for another reason than its step: minutes, or SIGUSR1."""

    def __init__(self, minutes: float | None, signals: Signals):
        self._minutes, self._signals = minutes, signals
        self._start = time.monotonic()

    def restart(self) -> None:
        """Begin to count anew: a checkpoint was just made."""
        self._start = time.monotonic()
        self._signals.save_requested = False

    def is_late(self) -> bool:
        """Whether the minutes are over."""
        return self._minutes is not None and time.monotonic() - self._start >= 60 * self._minutes

    def is_due(self) -> bool:
        """Whether a checkpoint is wanted now."""
        return self.is_late() or self._signals.save_requested


class RunControl:
    """Answers the training loop and its work: draw, stop, save.

    A run with one process hears its signals wherever it is. Several processes agree before each
    batch, since all have to run the same programs on their devices; within such a program nobody
    can be interrupted.

    Args:
        cohort: the processes.
        signals: of this one.
        data: of this one.
        save_minutes: between checkpoints; None: only steps count.
    """

    def __init__(
        self, cohort: Coordinator, signals: Signals, data: Data, save_minutes: float | None = None
    ):
        self._cohort, self._signals = cohort, signals
        self._clock = SaveTimer(save_minutes if cohort.is_leader else None, signals)
        self._agreed = SynchronizedBatches(
            cohort,
            data.train,
            combine=combine,
            padding=data.padding,
            wish=self._wish,
            heed=self._heed,
        )
        self._alone = cohort.size == 1
        self.stream = data.train if self._alone else self._agreed
        """The batches."""

    def should_stop(self) -> bool:
        """Whether to stop before the next batch."""
        return self._signals.stop_requested() if self._alone else self._agreed.should_stop()

    def should_stop_here(self) -> bool:
        """Whether to stop amid work, at a place that all processes come to."""
        return self._signals.stop_requested() if self._alone else self._agreed.agree_to_stop()

    def save_asked(self) -> bool:
        """Whether a checkpoint is wanted now."""
        return self._clock.is_due() if self._alone else self._agreed.save_asked

    def saved(self) -> None:
        """Take notice of a checkpoint."""
        self._clock.restart()

    def guard(self, work: Callable[[], T]) -> T:
        """Do work in which the devices of all processes take part.

        Raises:
            Interrupted: the only process is to stop, or the work itself raised it.
        """
        return self._signals.unless_stopped(work) if self._alone else work()

    def by_leader(self, name: str, work: Callable[[], T]) -> T:
        """Have the leader do work without any other's devices; return the result, a JSON value.

        Raises:
            Interrupted: the leader is to stop; in all processes.
        """
        return self._cohort.from_leader(name, lambda: self._signals.unless_stopped(work))

    def _wish(self) -> StopOrSaveRequest:
        signals = self._signals
        return StopOrSaveRequest(signals.stop, self._clock.is_late(), signals.save_requested)

    def _heed(self, wish: StopOrSaveRequest) -> None:
        if wish.stop is not None:
            self._signals.hear(wish.stop)
        if wish.signalled:
            self._signals.save_requested = True
