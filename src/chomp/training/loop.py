"""The training loop: draw a batch, take a step, perform the actions."""

import collections
import enum
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax

from chomp.errors import DataError
from chomp.training.step import TrainStep
from chomp.training.stopwatch import Stopwatch
from chomp.types import BatchStats, Drawn, Progress, StepMetrics, TrainState

# Steps dispatched ahead of the one that the device is computing. Enough to keep it busy, few
# enough that the progress shown is the progress made and a stop signal acts at once.
STEPS_AHEAD = 2


@dataclass
class Moment:
    """What actions see after a step; they may add to `row`, which the log action writes."""

    state: TrainState
    metrics: StepMetrics
    progress: Progress
    stats: BatchStats
    row: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Action:
    """Periodic work.

    Attributes:
        name: for messages.
        run: the work.
        every: steps between runs; 0: never.
        at_end: also after the last step, unless it ran there anyway.
        at_stop: also when the run stops before its last step.
        reports: tells of what others did, so at an early end it runs again behind them.
    """

    name: str
    run: Callable[[Moment], None]
    every: int
    at_end: bool = False
    at_stop: bool = False
    reports: bool = False

    def is_due(self, step: int) -> bool:
        """Whether `step` is one of those that the work follows."""
        return self.every > 0 and step % self.every == 0


class Ending(enum.Enum):
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
    ending: Ending


def run_loop(
    step: TrainStep,
    state: TrainState,
    progress: Progress,
    stream: Iterator[Drawn],
    actions: Sequence[Action],
    *,
    steps: int,
    should_stop: Callable[[], bool],
    stopwatch: Stopwatch,
) -> LoopResult:
    """Train until `steps` are finished, a stop is requested or the data ends.

    The stop request is looked at *before* a batch is drawn, since a drawn batch counts as
    trained on. Between actions the host never waits for a value, only for the device to have at
    most `STEPS_AHEAD` steps before it.

    Raises:
        DataError: no batch could be had; the actions of a stop have run.
    """
    in_flight: collections.deque[StepMetrics] = collections.deque()
    moment = None
    ending = Ending.FINISHED
    while progress.step < steps:
        if should_stop():
            ending = Ending.STOPPED
            break
        try:
            with stopwatch.waiting():
                drawn = next(stream)
        except StopIteration:
            ending = Ending.OUT_OF_DATA
            break
        except DataError:
            _run_remaining(actions, moment, Ending.STOPPED)
            raise
        state, metrics = step(state, drawn.batch)
        progress = progress.after(drawn.stats)
        moment = Moment(state, metrics, progress, drawn.stats)
        in_flight.append(metrics)
        if len(in_flight) > STEPS_AHEAD:
            jax.block_until_ready(in_flight.popleft())
        for action in actions:
            if action.is_due(progress.step) or (progress.step == steps and action.at_end):
                action.run(moment)
    if ending is not Ending.FINISHED:
        _run_remaining(actions, moment, ending)
    return LoopResult(progress, ending)


def _run_remaining(actions: Sequence[Action], moment: Moment | None, ending: Ending) -> None:
    """Run what an early end asks for and the last step did not call for."""
    if moment is None:
        return
    for action in actions:
        wanted = action.at_stop if ending is Ending.STOPPED else action.at_end
        if wanted and (action.reports or not action.is_due(moment.progress.step)):
            action.run(moment)
