"""When to kill: moments of a run, and how to know that one has come."""

import random
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from chomp.history.heartbeat import Beat, Phase


class Moment(StrEnum):
    """What a run is doing when it is killed."""

    STEP = "in a step"
    SAVE = "while a checkpoint is written"
    EVALUATION = "in an evaluation"
    SAMPLE = "in a sample"
    EPOCH = "at an epoch's end"
    TWICE = "again before the next checkpoint"
    START = "right after a resume"


class Kill(NamedTuple):
    """One SIGKILL.

    Attributes:
        moment: the kind of moment to wait for.
        step: the first finished step after which it may come.
        delay: seconds to wait once the moment has come.
    """

    moment: Moment
    step: int
    delay: float

    @property
    def follows(self) -> bool:
        """Whether its place is behind another kill."""
        return self.moment in (Moment.TWICE, Moment.START)


class Known(NamedTuple):
    """What the straight run showed of the moments there are."""

    steps: int
    step_seconds: float
    evaluations: Sequence[int]
    """Steps with an evaluation."""
    evaluation_seconds: float
    samples: Sequence[int]
    sample_seconds: float
    saves: Sequence[int]
    save_seconds: float
    epoch_ends: Sequence[int]
    """Steps whose batch holds the first document of another epoch."""
    start_seconds: float
    """From the start of the process to its first step."""


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


def _steps(moment: Moment, known: Known) -> Sequence[int]:
    match moment:
        case Moment.EVALUATION:
            return known.evaluations
        case Moment.SAMPLE:
            return known.samples
        case Moment.SAVE:
            return known.saves
        case Moment.EPOCH:
            return [step - 1 for step in known.epoch_ends]
        case _:
            return range(1, known.steps)


def _seconds(moment: Moment, known: Known) -> float:
    """Return how long the moment lasts."""
    match moment:
        case Moment.EVALUATION:
            return known.evaluation_seconds
        case Moment.SAMPLE:
            return known.sample_seconds
        case Moment.SAVE:
            return known.save_seconds
        case Moment.EPOCH:
            return 2 * known.step_seconds
        case Moment.START:
            return known.start_seconds
        case _:
            return known.step_seconds


def has_come(kill: Kill, beat: Beat, *, start: int, writing: bool) -> bool:
    """Return whether the moment has come.

    Args:
        kill: with the moment.
        beat: of the run.
        start: number of the start that is to be killed.
        writing: whether a checkpoint is being written.
    """
    if beat.start != start:
        return False
    match kill.moment:
        case Moment.START:
            return True
        case Moment.EVALUATION:
            return beat.phase is Phase.EVALUATING and beat.finished >= kill.step
        case Moment.SAMPLE:
            return beat.phase is Phase.SAMPLING and beat.finished >= kill.step
        case Moment.SAVE:
            return (writing or beat.phase is Phase.SAVING) and beat.finished >= kill.step
        case _:
            return beat.phase in (Phase.TRAINING, Phase.WAITING) and beat.finished >= kill.step
