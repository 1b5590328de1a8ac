"""Time per step, without the time of what isn't training."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import jax

from chomp.run.heartbeat import Heartbeat, Phase
from chomp.types import TrainState


class Lap(NamedTuple):
    """A stretch of training between two readings."""

    seconds: float
    """Wall time of the stretch, pauses left out."""
    waiting: float
    """Of these, seconds spent waiting for data."""


class StepTimer:
    """Measures laps; evaluation, sampling and saving are taken out of them.

    Args:
        heartbeat: is told what the run is doing; None: nobody is.
    """

    def __init__(self, heartbeat: Heartbeat | None = None):
        self._heartbeat = heartbeat or Heartbeat(None)
        self._phase = Phase.STARTING
        self._restart()

    def _restart(self) -> None:
        self._start = time.perf_counter()
        self._paused = self._waiting = 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time inside as waiting for data."""
        start = time.perf_counter()
        # The next step begins with the wait for its batch.
        self._phase = Phase.WAITING
        self._heartbeat.enter(Phase.WAITING, self._heartbeat.last_finished + 1)
        yield
        self._enter(Phase.TRAINING)
        self._waiting += time.perf_counter() - start

    @contextmanager
    def paused(self, phase: Phase) -> Iterator[None]:
        """Leave the time inside out of the lap. The device must be idle at the start."""
        start = time.perf_counter()
        self._enter(phase)
        try:
            yield
        finally:
            self._enter(Phase.TRAINING)
            self._paused += time.perf_counter() - start

    @contextmanager
    def paused_after(self, state: TrainState, phase: Phase) -> Iterator[None]:
        """Leave the time inside out of the lap, once the device has finished its steps."""
        jax.block_until_ready(state.step)
        with self.paused(phase):
            yield

    def alive(self) -> None:
        """Tell the heartbeat that the present phase goes on."""
        self._enter(self._phase)

    def _enter(self, phase: Phase) -> None:
        self._phase = phase
        self._heartbeat.enter(phase)

    def lap(self) -> Lap:
        """Return the lap so far and begin the next. The device must be idle."""
        seconds = time.perf_counter() - self._start - self._paused
        lap = Lap(max(seconds, 1e-9), self._waiting)
        self._restart()
        return lap
