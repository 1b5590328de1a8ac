"""What came of a sweep: each arm's scores, and its differences to the baseline."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from chomp.report.significance import PairedDifference, holm, paired_difference
from chomp.sweep.figures import Figures, Start, read_figures
from chomp.sweep.record import BROKEN, RunRecord, State, SweepRecord

BITS, LOSS = "bits_per_byte", "loss"


class SeedResult(NamedTuple):
    """A run of an arm."""

    record: RunRecord
    figures: Figures
    score: float | None
    """Of its last evaluation; None where it isn't finished."""
    loss: float | None
    """Nats per token in that evaluation."""


@dataclass(frozen=True)
class ArmResult:
    """An arm with all its seeds.

    Attributes:
        name: of the arm.
        overrides: `key=value`.
        seeds: its runs.
        mean: of the scores of the finished runs; None without any.
        deviation: their standard deviation; None with one.
        difference: to the baseline; None for the baseline itself, or where there is no pair.
        p_holm: the p of that, adjusted for the number of arms.
        at_equal_seconds: mean score when the shortest run of the sweep ended.
    """

    name: str
    overrides: Sequence[str]
    seeds: Sequence[SeedResult]
    mean: float | None
    deviation: float | None
    difference: PairedDifference | None
    p_holm: float | None
    at_equal_seconds: float | None

    @property
    def finished(self) -> list[SeedResult]:
        """Its runs that are finished."""
        return [seed for seed in self.seeds if seed.score is not None]

    def mean_of(self, name: str) -> float | None:
        """Return the mean of `seconds` or `step_seconds` over the finished runs."""
        found = [getattr(seed.figures, name) for seed in self.finished]
        found = [value for value in found if value is not None]
        return float(np.mean(found)) if found else None


@dataclass(frozen=True)
class SweepResults:
    """A sweep's results so far.

    Attributes:
        score: `bits_per_byte`, or `loss` where a finished run has no bits per byte.
        baseline: name of the arm that the others are compared with.
        arms: in the order in which they were asked for.
        equal_seconds: when the shortest finished run had its last evaluation; None without any.
        compiled: how often XLA compiled a training step, for runs and calibrations.
    """

    score: str
    baseline: str
    arms: Sequence[ArmResult]
    equal_seconds: float | None
    compiled: int

    @property
    def runs(self) -> list[SeedResult]:
        """All runs."""
        return [seed for arm in self.arms for seed in arm.seeds]

    @property
    def is_complete(self) -> bool:
        """Whether every run is finished, or was left behind by halving."""
        done = (State.FINISHED, State.DROPPED)
        return all(seed.record.state in done for seed in self.runs)


class Scores:
    """The scores of a sweep's runs, read from their folders.

    Args:
        record: of the sweep.
        folder: of the sweep.
        programs: by arm what its program is; runs with equal ones share what is compiled.
    """

    def __init__(self, record: SweepRecord, folder: Path, programs: Mapping[str, str]):
        compiling: dict[str, float] = {}
        spent = [(run.arm, run.compile_seconds or 0.0) for run in record.runs]
        spent += [(arm, each.compile_seconds) for arm, each in record.calibrations.items()]
        for arm, seconds in spent:
            program = programs[arm]
            compiling[program] = max(seconds, compiling.get(program, 0.0))
        self._record = record
        self.figures = {
            run.run: read_figures(
                folder / run.run,
                Start(
                    run.start_seconds or 0.0,
                    compiling[programs[run.arm]],
                    run.compile_seconds or 0.0,
                ),
            )
            for run in record.runs
        }
        ends = [
            self.figures[run.run].evaluations.bits_per_byte[-1:]
            for run in record.runs
            if run.state is State.FINISHED
        ]
        self.score = BITS if all(len(end) and np.isfinite(end[0]) for end in ends) else LOSS

    def of(self, arm: str) -> list[SeedResult]:
        """Return the runs of an arm, by seed."""
        found = []
        for run in self._record.runs:
            if run.arm == arm:
                figures = self.figures[run.run]
                at = (figures.step if run.state is State.FINISHED else -1,)
                evaluations = figures.evaluations
                found.append(
                    SeedResult(
                        run,
                        figures,
                        evaluations.at_step(self.score, *at),
                        evaluations.at_step(LOSS, *at),
                    )
                )
        return found

    def mean_at(self, arm: str, step: int) -> float:
        """Return the mean score of an arm's runs after a step; infinity without any."""
        found = [
            self.figures[run.run].evaluations.at_step(self.score, step)
            for run in self._record.runs
            if run.arm == arm and run.state not in BROKEN
        ]
        known = [score for score in found if score is not None]
        return float(np.mean(known)) if known else math.inf


def results(
    record: SweepRecord, folder: Path, programs: Mapping[str, str], baseline: str
) -> SweepResults:
    """Return the results of a sweep, be it complete or not.

    Args:
        record: of the sweep.
        folder: of the sweep.
        programs: by arm what its program is.
        baseline: name of the arm that the others are compared with.
    """
    scores = Scores(record, folder, programs)
    arms = {name: scores.of(name) for name in record.arms}
    finished = [seed for seeds in arms.values() for seed in seeds if seed.score is not None]
    ends = [seed.figures.evaluations.seconds[-1] for seed in finished]
    equal = float(min(ends)) if ends else None
    differences = {
        name: _difference(seeds, arms[baseline]) for name, seeds in arms.items() if name != baseline
    }
    tested = {name: found.p for name, found in differences.items() if found and found.p is not None}
    adjusted = dict(zip(tested, holm(list(tested.values())), strict=True))
    return SweepResults(
        scores.score,
        baseline,
        [
            ArmResult(
                name,
                record.arms[name],
                seeds,
                _mean([seed.score for seed in seeds]),
                _deviation([seed.score for seed in seeds]),
                differences.get(name),
                adjusted.get(name),
                _at_equal_seconds(seeds, scores.score, equal),
            )
            for name, seeds in arms.items()
        ],
        equal,
        sum(each.compiled for each in [*record.runs, *record.calibrations.values()]),
    )


def _difference(
    arm: Sequence[SeedResult], baseline: Sequence[SeedResult]
) -> PairedDifference | None:
    """Compare two arms on the seeds with which both are finished."""
    pairs = [
        (one.score, two.score)
        for one in arm
        for two in baseline
        if one.record.seed == two.record.seed and None not in (one.score, two.score)
    ]
    if not pairs:
        return None
    first, second = np.array(pairs, dtype=np.float64).T
    return paired_difference(first, second)


def _at_equal_seconds(
    seeds: Sequence[SeedResult], score: str, seconds: float | None
) -> float | None:
    if seconds is None:
        return None
    found = [
        seed.figures.evaluations.at_seconds(score, seconds)
        for seed in seeds
        if seed.score is not None
    ]
    return None if None in found else _mean(found)


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _mean(values: Sequence[float | None]) -> float | None:
    known = _known(values)
    return float(np.mean(known)) if known else None


def _deviation(values: Sequence[float | None]) -> float | None:
    known = _known(values)
    return float(np.std(known, ddof=1)) if len(known) > 1 else None


def as_values(found: SweepResults, record: SweepRecord, folder: Path) -> dict[str, Any]:
    """Return the results as JSON values; docs/how-to/sweep.md explains them."""
    return {
        "config": record.config,
        "folder": str(folder),
        "complete": found.is_complete,
        "score": found.score,
        "baseline": found.baseline,
        "budget": record.budget,
        "halving": record.halving,
        "equal_seconds": found.equal_seconds,
        "programs_compiled": found.compiled,
        "arms": [_arm_values(arm, folder) for arm in found.arms],
    }


def _arm_values(arm: ArmResult, folder: Path) -> dict[str, Any]:
    test = arm.difference
    return {
        "name": arm.name,
        "overrides": list(arm.overrides),
        "seeds": [_seed_values(seed, folder) for seed in arm.seeds],
        "finished": len(arm.finished),
        "mean": arm.mean,
        "deviation": arm.deviation,
        "pairs": test.pairs if test else 0,
        "diff": test and test.difference,
        "ci_low": test and test.low,
        "ci_high": test and test.high,
        "p": test and test.p,
        "p_holm": arm.p_holm,
        "step_seconds": arm.mean_of("step_seconds"),
        "seconds": arm.mean_of("seconds"),
        "at_equal_seconds": arm.at_equal_seconds,
    }


def _seed_values(seed: SeedResult, folder: Path) -> dict[str, Any]:
    record, figures = seed.record, seed.figures
    return {
        "seed": record.seed,
        "run": str(folder / record.run),
        "state": str(record.state),
        "reason": record.reason or None,
        "bits_per_byte": figures.evaluations.at_step(BITS, figures.step),
        "eval_loss": figures.evaluations.at_step(LOSS, figures.step),
        "steps": figures.step,
        "tokens": figures.tokens,
        "seconds": figures.seconds,
        "step_seconds": figures.step_seconds,
        "compiled": record.compiled,
        "starts": figures.starts,
    }
