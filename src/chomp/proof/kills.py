"""Kills of a run: the moments for them, and how to know that one has come."""

import random
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from chomp.run.heartbeat import HeartbeatReading, Phase

TRIES = 5
"""Tries of a kill: a short moment may be over before the signal arrives."""


class Moment(StrEnum):
    """The moment of a run at which it is killed."""

    STEP = "in a step"
    SAVE = "while a checkpoint is written"
    EVALUATION = "in an evaluation"
    SAMPLE = "in a sample"
    EPOCH = "across an epoch's end"
    TWICE = "again before the next checkpoint"
    START = "while it starts again"
    RESUME = "right after a resume"


FOLLOWING = (Moment.TWICE, Moment.START, Moment.RESUME)
"""Moments that come after another kill, wherever that was."""

STARTS = (Phase.STARTING, Phase.COMPILING, Phase.RESTORING)


class Kill(NamedTuple):
    """One SIGKILL.

    Attributes:
        moment: the kind of moment to wait for.
        step: finished steps before which it doesn't come; of no meaning where it follows another.
        delay: seconds to wait once the moment has come, unless it ends before.
        tries: number of times that it came too late.
    """

    moment: Moment
    step: int
    delay: float
    tries: int = 0

    def again(self) -> "Kill":
        """Return the next try, which waits less."""
        return self._replace(delay=self.delay / 8, tries=self.tries + 1)


class Times(NamedTuple):
    """The times that a run did some periodic work."""

    steps: Sequence[int]
    """The steps behind which it was done."""
    seconds: float
    """About how long it took each time."""

    @staticmethod
    def of(steps: Sequence[int], total: float) -> "Times":
        """Return the times of work that took `total` seconds in all."""
        return Times(steps, total / max(1, len(steps)))


class Known(NamedTuple):
    """The moments that the straight run had."""

    steps: int
    step_seconds: float
    evaluations: Times
    samples: Times
    saves: Times
    save_every: int
    epoch_ends: Sequence[int]
    """Steps whose batch holds the first document of another epoch."""
    start_seconds: float
    """From the start of the process to the compilation, which is shorter at the next start."""


class View(NamedTuple):
    """A look at a run from outside."""

    reading: HeartbeatReading
    writing: bool
    """Whether a checkpoint is being written."""
    newest: int
    """Step of the newest checkpoint; 0 without any."""
    resumed: int
    """Step of the checkpoint that this start goes on from; 0 at the beginning."""


def plan_kills(count: int, known: Known, seed: int) -> list[Kill]:
    """Return `count` kills, each kind of moment that there is in turn, at random steps."""
    rng = random.Random(seed)
    kinds = [moment for moment in Moment if _steps(moment, known)]
    kills: list[Kill] = []
    while len(kills) < count:
        moment = kinds[len(kills) % len(kinds)]
        step = rng.choice(_steps(moment, known))
        kills.append(Kill(moment, step, rng.uniform(0, _seconds(moment, known))))
    return kills


def in_order(kills: Sequence[Kill]) -> list[Kill]:
    """Return the kills in the order in which one run can have them.

    Those that follow another come one each after the others; if there are none, one more comes
    first.
    """
    following = [kill for kill in kills if kill.moment in FOLLOWING]
    placed = sorted((k for k in kills if k.moment not in FOLLOWING), key=lambda kill: kill.step)
    order = []
    for kill in placed or [Kill(Moment.STEP, 1, 0.0)]:
        order.append(kill)
        order += following[:1]
        following = following[1:]
    return order + following


def _steps(moment: Moment, known: Known) -> Sequence[int]:
    match moment:
        case Moment.EVALUATION:
            return known.evaluations.steps
        case Moment.SAMPLE:
            return known.samples.steps
        case Moment.SAVE:
            return known.saves.steps
        case Moment.EPOCH:
            return [step - 1 for step in known.epoch_ends]
        case Moment.STEP:
            # Behind the second save, which waits for the first: it goes on from a checkpoint.
            return range(2 * known.save_every + 1, known.steps)
        case _:
            return range(1, known.steps)


def _seconds(moment: Moment, known: Known) -> float:
    """Return about how long the moment lasts."""
    match moment:
        case Moment.EVALUATION:
            return known.evaluations.seconds
        case Moment.SAMPLE:
            return known.samples.seconds
        case Moment.SAVE:
            return known.saves.seconds
        case Moment.TWICE:
            return known.step_seconds * known.save_every
        case Moment.START:
            return 2 * known.start_seconds
        case _:
            return 2 * known.step_seconds


def is_now(kill: Kill, view: View) -> bool:
    """Return whether the kill's moment is there."""
    phase, finished = view.reading.phase, view.reading.finished
    stepping = phase in (Phase.TRAINING, Phase.WAITING)
    match kill.moment:
        case Moment.EVALUATION:
            return phase is Phase.EVALUATING and finished >= kill.step
        case Moment.SAMPLE:
            return phase is Phase.SAMPLING and finished >= kill.step
        case Moment.SAVE:
            return (view.writing or phase is Phase.SAVING) and finished >= kill.step
        case Moment.EPOCH:
            return stepping and kill.step <= finished <= kill.step + 1
        case Moment.TWICE:
            return stepping and view.newest == view.resumed
        case Moment.START:
            return phase in STARTS
        case Moment.RESUME:
            return phase not in STARTS and finished <= view.resumed + 1
        case _:
            return stepping and finished >= kill.step
