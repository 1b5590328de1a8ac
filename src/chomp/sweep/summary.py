"""The results of a sweep as a table, and as lines below it."""

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from chomp.sweep.record import BROKEN, RunRecord, State
from chomp.sweep.results import ArmResult, SweepResults
from chomp.system.terminal import program_name

SURE = 0.05


def columns(found: SweepResults) -> list[str]:
    """Return the heads of the table."""
    score = "bits per byte" if found.score == "bits_per_byte" else "evaluation loss"
    return [
        *("arm", "seeds", score, "difference", "95% interval", "p, Holm"),
        *("ms/step", "seconds", f"at {found.equal_seconds or 0:.0f} s"),
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
    return [
        arm.name,
        f"{len(arm.finished)}/{len(arm.seeds)}",
        _number(arm.mean, ".4f") + ("" if arm.deviation is None else f" ± {arm.deviation:.4f}"),
        "baseline" if arm.name == baseline else _number(test and test.difference, "+.4f"),
        interval,
        _number(arm.p_holm, ".4f"),
        _number(step and step * 1e3, ".1f"),
        _number(arm.mean_of("seconds"), ".0f"),
        _number(arm.at_equal_seconds, ".4f"),
    ]


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def notes(found: SweepResults, folder: Path) -> Iterator[str]:
    """Yield what is to be said below the table."""
    yield (
        f"compiled   a training step {found.compiled} time{'' if found.compiled == 1 else 's'} for "
        f"{len(found.runs)} runs; else it was in memory or in the compile cache"
    )
    for arm in found.arms:
        broken = [seed.record for seed in arm.seeds if seed.record.state in BROKEN]
        if broken:
            yield (
                f"{broken[0].state:<10} {arm.name}, {len(broken)} of {len(arm.seeds)} seeds: "
                f"{short_reason(broken[0])}"
            )
        if any(seed.record.state is State.DROPPED for seed in arm.seeds):
            yield f"dropped    {arm.name}: {arm.seeds[0].record.reason}"
    if verdict := _verdict(found):
        yield verdict
    shown = shlex.quote(str(folder))
    yield f"runs       in {shown}: {program_name()} report {shown}/*_seed*"


def short_reason(record: RunRecord) -> str:
    """Return the first sentence of what ended a run."""
    return record.reason.split("\n")[0].split(". ")[0]


def _verdict(found: SweepResults) -> str:
    tested = [arm for arm in found.arms if arm.p_holm is not None]
    if not tested:
        return "chance     not tested: that takes two arms and two seeds at least (--seeds 5)"
    sure = [
        f"{arm.name} {'better' if arm.difference.difference < 0 else 'worse'}"
        for arm in tested
        if arm.difference and arm.p_holm is not None and arm.p_holm < SURE
    ]
    what = f"{', '.join(sure)} than" if sure else "no arm differs by more than chance explains from"
    return f"p < {SURE:<7}{what} {found.baseline}"


def go_on(command: Sequence[str], found: SweepResults) -> str:
    """Return the line that a sweep ends with which was stopped."""
    done = sum(seed.record.state in (State.FINISHED, State.DROPPED) for seed in found.runs)
    return (
        f"stopped    {done} of {len(found.runs)} runs are done, and all is saved; the same command "
        f"goes on: {shlex.join(command)}"
    )
