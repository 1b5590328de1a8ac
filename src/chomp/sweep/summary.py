"""The results of a sweep as a table, and as lines below it."""

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from chomp.sweep.record import State
from chomp.sweep.results import ArmResult, SweepResults
from chomp.system.terminal import program_name

SURE = 0.05


def columns(found: SweepResults) -> list[str]:
    """Return the heads of the table."""
    score = "bits per byte" if found.score == "bits_per_byte" else "evaluation loss"
    return [
        *("arm", "seeds", score, "deviation", "difference", "95% interval", "p", "p, Holm"),
        *("ms a step", "seconds", f"after {found.equal_seconds or 0:.0f} s"),
    ]


def rows(found: SweepResults) -> list[list[str]]:
    """Return a line for each arm, the best first; those without a score come last."""
    ranked = sorted(found.arms, key=lambda arm: (arm.mean is None, arm.mean or 0.0))
    return [_cells(arm, found.baseline) for arm in ranked]


def _cells(arm: ArmResult, baseline: str) -> list[str]:
    test, step = arm.difference, arm.mean_of("step_seconds")
    interval = "-"
    if test and test.low is not None and test.high is not None:
        interval = f"{test.low:+.4f} to {test.high:+.4f}"
    difference = "baseline" if arm.name == baseline else _number(test and test.difference, "+.4f")
    return [
        arm.name,
        f"{len(arm.finished)}/{len(arm.seeds)}",
        _number(arm.mean, ".4f"),
        _number(arm.deviation, ".4f"),
        difference,
        interval,
        _number(test and test.p, ".4f"),
        _number(arm.p_holm, ".4f"),
        _number(step and step * 1e3, ".1f"),
        _number(arm.mean_of("seconds"), ".0f"),
        _number(arm.at_equal_seconds, ".4f"),
    ]


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def notes(found: SweepResults, folder: Path) -> Iterator[str]:
    """Yield what is to be said below the table."""
    runs = found.runs
    yield f"compiled   the training step of {found.compiled} of {len(runs)} runs"
    for seed in runs:
        record = seed.record
        if record.state in (State.FAILED, State.DIVERGED):
            reason = record.reason.splitlines()[0] if record.reason else ""
            yield f"{record.state:<10} {record.arm} seed {record.seed}: {reason}"
    dropped = list(dict.fromkeys(s.record.arm for s in runs if s.record.state is State.DROPPED))
    if dropped:
        yield f"dropped    {', '.join(dropped)}: not in the better half (--halving)"
    if verdict := _verdict(found):
        yield verdict
    shown = shlex.quote(str(folder))
    yield f"runs       in {shown}: {program_name()} report {shown}/*_seed*"


def _verdict(found: SweepResults) -> str:
    tested = [arm for arm in found.arms if arm.p_holm is not None]
    if not tested:
        return "chance     not tested, which takes at least two seeds (--seeds 5)"
    sure = [
        f"{arm.name} {'is better' if arm.difference.difference < 0 else 'is worse'}"
        for arm in tested
        if arm.difference and arm.p_holm is not None and arm.p_holm < SURE
    ]
    if not sure:
        return f"chance     no arm differs from {found.baseline} by more than that (p < {SURE})"
    return f"chance     than {found.baseline}, by more than that (p < {SURE}): {', '.join(sure)}"


def go_on(command: Sequence[str], found: SweepResults) -> str:
    """Return the line that a sweep ends with which was stopped."""
    done = sum(seed.record.state in (State.FINISHED, State.DROPPED) for seed in found.runs)
    return (
        f"stopped    {done} of {len(found.runs)} runs are done, and all is saved; the same command "
        f"goes on: {shlex.join(command)}"
    )
