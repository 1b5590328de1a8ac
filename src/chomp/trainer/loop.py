"""The training loop: draw a batch, take a step, perform the actions."""

import collections
import enum
import functools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import jax

from chomp.errors import DataError, Interrupted
from chomp.trainer.step import TrainStep
from chomp.trainer.step_timer import StepTimer
from chomp.types import BatchStats, LoadedBatch, Progress, StepMetrics, TrainState

# Steps dispatched behind the one that the device is computing. Enough to keep it busy, few enough
# that the progress shown is the progress made and a stop signal acts soon.
STEPS_AHEAD = 1
WAIT_SECONDS = 0.05


class Stream(Protocol):
    """Batches, and a wait for them that can be given up."""

    def wait(self, seconds: float) -> bool:
        """Return whether `next` answers at once."""
        ...

    def __next__(self) -> LoadedBatch:
        """Return the next batch. Raises StopIteration at the end, DataError where it broke."""
        ...


class LogWindow(NamedTuple):
    """The steps since the newest row of metrics."""

    steps: int = 0
    tokens: int = 0
    """Their tokens that are not padding."""


@dataclass
class StepInfo:
    """What actions see after a step; they may add to `row`, which the log action writes."""

    state: TrainState
    metrics: StepMetrics
    progress: Progress
    stats: BatchStats
    row: dict[str, Any] = field(default_factory=dict)
    """Values that are not written yet."""
    window: LogWindow = field(default_factory=LogWindow)
    done: set[str] = field(default_factory=set)
    """Names of the actions that have run."""
    pending: list[str] = field(default_factory=list)
    """Names of those that a stop or a failure has kept from it: a resume makes up for them."""
    failure: DataError | None = None
    """Why an action couldn't have the documents that it needs: ends the run, saved."""


def _never() -> bool:
    return False


@dataclass(frozen=True)
class Callback:
    """Periodic work.

    Attributes:
        name: for messages.
        run: the work; may raise Interrupted.
        every: steps between runs; 0: never.
        at_end: also after the last step, unless it ran there anyway.
        at_stop: also when the run stops before its last step; runs whatever a stop has interrupted.
        reports: tells of what others did, so at an early end it runs again behind them.
        asked: whether it is wanted now for another reason than the step.
    """

    name: str
    run: Callable[[StepInfo], None]
    every: int
    at_end: bool = False
    at_stop: bool = False
    reports: bool = False
    asked: Callable[[], bool] = _never

    def is_due(self, step: int) -> bool:
        """Whether the work follows `step`."""
        return (self.every > 0 and step % self.every == 0) or self.asked()


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
    ending: StopReason


def run_loop(
    step: TrainStep,
    state: TrainState,
    progress: Progress,
    stream: Stream,
    actions: Sequence[Callback],
    *,
    steps: int,
    should_stop: Callable[[], bool],
    stopwatch: StepTimer,
    skipped: Collection[int] = (),
) -> LoopResult:
    """Train until `steps` are finished, a stop is requested or the data ends.

    The stop request is looked at *before* a batch is drawn, since a drawn batch counts as
    trained on. Between actions the host never waits for a value, only for the device to have at
    most `STEPS_AHEAD` steps before it.

    Args:
        step: the compiled training step.
        state: to start from; donated.
        progress: counts at the start.
        stream: of batches.
        actions: periodic work, in its order.
        steps: the last step.
        should_stop: whether a stop was requested.
        stopwatch: measures the steps.
        skipped: numbers of batches that are drawn and left out.

    Raises:
        DataError: a batch, or what an action needs, could not be had; the actions of a stop have
            run.
    """
    in_flight: collections.deque[StepMetrics] = collections.deque()
    moment = None
    ending = StopReason.FINISHED
    while progress.step < steps:
        try:
            with stopwatch.waiting():
                drawn = _draw(stream, should_stop)
        except Interrupted:
            ending = StopReason.STOPPED
            break
        except StopIteration:
            ending = StopReason.OUT_OF_DATA
            break
        except DataError:
            _end(actions, moment, StopReason.STOPPED)
            raise
        if progress.batches + 1 in skipped:
            progress = progress.without_batch()
            if moment:  # a stop saves the data's place, which is behind this batch
                moment.progress = progress
            continue
        state, metrics = step(state, drawn.batch)
        progress = progress.after(drawn.stats)
        moment = StepInfo(state, metrics, progress, drawn.stats)
        in_flight.append(metrics)
        if len(in_flight) > STEPS_AHEAD:
            jax.block_until_ready(in_flight.popleft())
        perform(actions, moment, functools.partial(_follows, step=progress.step, steps=steps))
        if moment.failure:
            break
    if ending is not StopReason.FINISHED or (moment and moment.pending):
        _end(actions, moment, ending)
    if moment and moment.failure:
        raise moment.failure
    return LoopResult(progress, StopReason.STOPPED if moment and moment.pending else ending)


def _draw(stream: Stream, should_stop: Callable[[], bool]) -> LoadedBatch:
    while True:
        if should_stop():
            raise Interrupted
        if stream.wait(WAIT_SECONDS):
            return next(stream)


def _follows(action: Callback, *, step: int, steps: int) -> bool:
    return action.is_due(step) or (step == steps and action.at_end)


def perform(
    actions: Sequence[Callback], moment: StepInfo, wanted: Callable[[Callback], bool]
) -> None:
    """Run the wanted actions that have not run yet, in order.

    Once a stop has interrupted one, or one has no data, the others are only noted as pending, but
    for those that report and those that belong to a stop.
    """
    for action in actions:
        if not wanted(action) or (action.name in moment.done and not action.reports):
            continue
        if moment.pending and not (action.reports or action.at_stop):
            moment.pending.append(action.name)
            continue
        try:
            action.run(moment)
        except Interrupted:
            moment.pending.append(action.name)
        except DataError as failure:
            moment.pending.append(action.name)
            moment.failure = failure
        else:
            moment.done.add(action.name)


def _end(actions: Sequence[Callback], moment: StepInfo | None, ending: StopReason) -> None:
    """Run what an early end asks for and the last step did not call for."""
    if moment is None:
        return
    stopped = ending is StopReason.STOPPED or bool(moment.pending)
    perform(actions, moment, lambda action: action.at_stop if stopped else action.at_end)
