"""The training loop: draw a batch, take a step, call the callbacks."""

import collections
import enum
from collections.abc import Collection
from dataclasses import dataclass

import jax

from chomp.errors import DataError, Interrupted
from chomp.trainer.callback import StepInfo
from chomp.trainer.callbacks.runner import CallbackRunner
from chomp.trainer.control import RunControl
from chomp.trainer.step import TrainStep
from chomp.trainer.step_timer import StepTimer
from chomp.types import Progress, StepMetrics, TrainState

# Steps dispatched after the one that the device is computing. Enough to keep it busy, few enough
# that the progress shown is the progress made and a stop signal acts soon.
STEPS_AHEAD = 1


class StopReason(enum.Enum):
    """Why a loop ended."""

    FINISHED = "finished"
    """The last step is done."""
    STOPPED = "stopped"
    """A stop was requested."""
    OUT_OF_DATA = "out of data"
    """The stream of batches ended first."""


@dataclass(frozen=True)
class LoopResult:
    """The counts after the loop, and why it ended."""

    progress: Progress
    reason: StopReason


@dataclass(frozen=True)
class TrainLoop:
    """Trains until the last step is finished, a stop is requested or the data ends.

    Between callbacks the host never waits for a value, only for the device to have at most
    `STEPS_AHEAD` steps before it.

    Attributes:
        step: the compiled training step.
        control: gives batches and stop requests.
        callbacks: work after the steps.
        timer: measures the steps.
        steps: the last step.
        skipped: numbers of batches that are drawn and left out.
    """

    step: TrainStep
    control: RunControl
    callbacks: CallbackRunner
    timer: StepTimer
    steps: int
    skipped: Collection[int] = ()

    def run(self, state: TrainState, progress: Progress) -> LoopResult:
        """Train from `state`, which is donated.

        Raises:
            DataError: a batch, or what a callback needs, could not be had; what a stop asks for
                is done.
        """
        callbacks, in_flight = self.callbacks, collections.deque[StepMetrics]()
        info, reason = None, StopReason.FINISHED
        while progress.step < self.steps:
            try:
                with self.timer.waiting():
                    drawn = self.control.next_batch()
            except Interrupted:
                reason = StopReason.STOPPED
                break
            except StopIteration:
                reason = StopReason.OUT_OF_DATA
                break
            except DataError:
                if info:
                    callbacks.at_stop(info)
                raise
            if progress.batches + 1 in self.skipped:
                progress = progress.without_batch()
                if info:  # a stop saves the data's place, which is after this batch
                    info = info._replace(progress=progress)
                continue
            state, metrics = self.step(state, drawn.batch)
            progress = progress.after(drawn.stats)
            info = StepInfo(state, metrics, progress, drawn.stats)
            in_flight.append(metrics)
            if len(in_flight) > STEPS_AHEAD:
                jax.block_until_ready(in_flight.popleft())
            callbacks.after_step(info)
            if callbacks.pending.failure:
                break
        if info:
            self._end(info, reason)
        return LoopResult(progress, StopReason.STOPPED if callbacks.pending.callbacks else reason)

    def _end(self, info: StepInfo, reason: StopReason) -> None:
        pending = self.callbacks.pending
        if reason is StopReason.OUT_OF_DATA:
            self.callbacks.at_data_end(info)
        elif reason is StopReason.STOPPED or pending.callbacks:
            self.callbacks.at_stop(info)
        if pending.failure:
            raise pending.failure
