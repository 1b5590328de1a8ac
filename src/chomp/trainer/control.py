"""Stop and save requests, acted on at the same step by every process."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeVar

from chomp.coordinator import Coordinator
from chomp.data import BatchLoader, Data
from chomp.errors import Interrupted
from chomp.system.signals import Signals
from chomp.trainer.stop_and_save import StopAndSaveRequests
from chomp.trainer.synchronized_batches import SynchronizedBatches
from chomp.types import LoadedBatch

T = TypeVar("T")
WAIT_SECONDS = 0.05


class RunControl(ABC):
    """The next batch, unless a stop was requested; and whether a checkpoint is wanted."""

    def next_batch(self) -> LoadedBatch:
        """Return the next batch.

        The stop request is looked at *before* a batch is drawn, since a drawn batch counts as
        trained on.

        Raises:
            Interrupted: a stop was requested.
            StopIteration: the data has ended.
            DataError: a batch could not be had.
        """
        while True:
            if self.should_stop():
                raise Interrupted
            if batch := self.poll(WAIT_SECONDS):
                return batch

    @abstractmethod
    def should_stop(self) -> bool:
        """Whether to stop before the next batch."""

    @abstractmethod
    def poll(self, seconds: float) -> LoadedBatch | None:
        """Return the next batch, if it can be had within so many seconds."""

    @abstractmethod
    def check_stop(self) -> None:
        """Raise Interrupted if a stop was requested; called amid work, by all processes alike."""

    @abstractmethod
    def save_requested(self) -> bool:
        """Whether a checkpoint is wanted now."""

    @abstractmethod
    def checkpoint_saved(self) -> None:
        """Take notice of a checkpoint."""

    @abstractmethod
    def unless_stopped(self, work: Callable[..., T], *args: Any) -> T:
        """Return `work(*args)`, in which the devices of all processes take part.

        Raises:
            Interrupted: a stop was requested.
        """

    @abstractmethod
    def on_leader(self, name: str, work: Callable[..., T], *args: Any) -> T:
        """Return `work(*args)`, a JSON value, done by the leader without any other's devices.

        Raises:
            Interrupted: a stop was requested; in all processes.
        """


class LocalControl(RunControl):
    """Of a run with one process, which hears its signals wherever it is."""

    def __init__(self, batches: BatchLoader, requests: StopAndSaveRequests):
        self._batches, self._requests = batches, requests

    def should_stop(self) -> bool:
        """Whether a stop was requested."""
        return self._requests.signals.stop_requested()

    def poll(self, seconds: float) -> LoadedBatch | None:
        """Return the next batch, if it can be had within so many seconds."""
        return next(self._batches) if self._batches.wait(seconds) else None

    def check_stop(self) -> None:
        """Raise Interrupted if a stop was requested."""
        if self.should_stop():
            raise Interrupted

    def save_requested(self) -> bool:
        """Whether a checkpoint is wanted now."""
        request = self._requests.own()
        return request.save or request.signalled

    def checkpoint_saved(self) -> None:
        """Take notice of a checkpoint."""
        self._requests.checkpoint_saved()

    def unless_stopped(self, work: Callable[..., T], *args: Any) -> T:
        """Return `work(*args)`, or raise Interrupted as soon as a stop is requested."""
        return self._requests.signals.unless_stopped(work, *args)

    def on_leader(self, name: str, work: Callable[..., T], *args: Any) -> T:
        """Return `work(*args)`, or raise Interrupted as soon as a stop is requested."""
        return self._requests.signals.unless_stopped(work, *args)


class SynchronizedControl(RunControl):
    """Of a run with several processes, which agree before each batch.

    All have to run the same programs on their devices; within such a program nobody can be
    interrupted.
    """

    def __init__(self, coordinator: Coordinator, data: Data, requests: StopAndSaveRequests):
        self._coordinator, self._requests = coordinator, requests
        self._batches = SynchronizedBatches(coordinator, data.train, data.padding, requests)

    def should_stop(self) -> bool:
        """Whether all stop now."""
        return self._batches.should_stop()

    def poll(self, seconds: float) -> LoadedBatch | None:
        """Return this process's part of the next batch, if all have theirs or know why not."""
        return next(self._batches) if self._batches.wait(seconds) else None

    def check_stop(self) -> None:
        """Raise Interrupted if any process was asked to stop; all ask at the same place."""
        self._batches.agree_to_stop()
        if self.should_stop():
            raise Interrupted

    def save_requested(self) -> bool:
        """Whether all save after this step."""
        return self._batches.save_requested

    def checkpoint_saved(self) -> None:
        """Take notice of a checkpoint."""
        self._requests.checkpoint_saved()

    def unless_stopped(self, work: Callable[..., T], *args: Any) -> T:
        """Return `work(*args)`, whose devices nobody can interrupt."""
        return work(*args)

    def on_leader(self, name: str, work: Callable[..., T], *args: Any) -> T:
        """Return what the leader's `work(*args)` returns, or raise Interrupted in all processes."""
        return self._coordinator.on_leader(name, self._requests.signals.unless_stopped, work, *args)


def run_control(
    coordinator: Coordinator, data: Data, signals: Signals, save_minutes: float | None
) -> RunControl:
    """Return the control of a run, by its number of processes.

    Args:
        coordinator: the processes.
        data: of this process.
        signals: to this process.
        save_minutes: between checkpoints; None: only steps count.
    """
    requests = StopAndSaveRequests(signals, save_minutes if coordinator.is_leader else None)
    if coordinator.size == 1:
        return LocalControl(data.train, requests)
    return SynchronizedControl(coordinator, data, requests)
