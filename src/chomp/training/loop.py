"""The training loop: draw a batch, take a step, perform the actions."""

import collections
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax

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
        at_stop: also when a signal stopped the run.
    """

    name: str
    run: Callable[[Moment], None]
    every: int
    at_end: bool = False
    at_stop: bool = False


@dataclass(frozen=True)
class LoopResult:
    """The state after the loop, and why it ended."""

    state: TrainState
    progress: Progress
    stopped: bool
    """Whether a stop request ended the run before its last step."""


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
    """Train until `steps` are finished or `should_stop()` is true.

    The stop request is looked at *before* a batch is drawn, since a drawn batch counts as
    trained on. Between actions the host never waits for a value, only for the device to have at
    most `STEPS_AHEAD` steps before it.
    """
    in_flight: collections.deque[StepMetrics] = collections.deque()
    moment = None
    while progress.step < steps and not should_stop():
        with stopwatch.waiting():
            drawn = next(stream)
        state, metrics = step(state, drawn.batch)
        progress = progress.after(drawn.stats)
        moment = Moment(state, metrics, progress, drawn.stats)
        in_flight.append(metrics)
        if len(in_flight) > STEPS_AHEAD:
            jax.block_until_ready(in_flight.popleft())
        last = progress.step == steps
        for action in actions:
            if _due(action, progress.step) or (last and action.at_end):
                action.run(moment)
    stopped = progress.step < steps
    if stopped and moment is not None:
        for action in actions:
            if action.at_stop and not _due(action, progress.step):
                action.run(moment)
    return LoopResult(state, progress, stopped)


def _due(action: Action, step: int) -> bool:
    return action.every > 0 and step % action.every == 0
