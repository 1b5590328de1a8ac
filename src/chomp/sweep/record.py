"""What a sweep knows of itself, as `sweep.json` holds it."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from chomp import __version__
from chomp.checkpoint.compatibility import changes
from chomp.errors import ResumeError
from chomp.sweep.plan import Plan, Point
from chomp.system.atomic_file import replace_text
from chomp.system.json_text import parse_json

FORMAT = 1
NAME = "sweep.json"


class State(StrEnum):
    """How far a run of a sweep is."""

    WAITING = "waiting"
    """Not begun, or to be gone on with."""
    FINISHED = "finished"
    DROPPED = "dropped"
    """Left behind by halving."""
    DIVERGED = "diverged"
    FAILED = "failed"
    """By another error: the next time it is tried again."""


ENDED = (State.FINISHED, State.DROPPED, State.DIVERGED)
BROKEN = (State.DIVERGED, State.FAILED)


@dataclass
class RunRecord:
    """A run of a sweep. Times are seconds."""

    arm: str
    seed: int
    run: str
    """Name of its folder."""
    state: State = State.WAITING
    reason: str = ""
    """Why it isn't finished."""
    compiled: bool = False
    """Whether XLA compiled the training step for it, rather than find it in memory or on disk."""
    start_seconds: float | None = None
    """From the start of its process to the run's; that of the run that began the process."""
    compile_seconds: float | None = None
    """Spent on tracing, compiling and loading programs, in all its processes."""
    step: int = 0
    """Where halving has stopped it, to be compared."""


@dataclass
class Calibration:
    """What a budget of seconds means for an arm."""

    steps: int
    """`train.steps`."""
    compiled: bool
    """Whether XLA compiled the training step to find out."""
    compile_seconds: float
    """Spent on tracing, compiling and loading programs; 0 where another arm has the same."""


@dataclass
class SweepRecord:
    """All of `sweep.json`."""

    config: str
    """Path of the configuration."""
    base: dict[str, Any]
    """Its values, without those of the arms."""
    budget: str | None
    halving: bool
    seeds: int
    arms: dict[str, list[str]]
    """Overrides by name."""
    calibrations: dict[str, Calibration] = field(default_factory=dict)
    """By arm, where the budget is in seconds."""
    cpu_threads: int = 0
    """Threads that XLA computes with on a CPU."""
    runs: list[RunRecord] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        """Put it into the folder.

        Raises:
            OSError: that isn't possible.
        """
        values = {"format": FORMAT, "chomp": __version__} | dataclasses.asdict(self)
        replace_text(folder / NAME, json.dumps(values, indent=1) + "\n")

    def steps(self, arm: str) -> int | None:
        """Return the steps that an arm has in a budget of seconds; None without one."""
        return self.calibrations[arm].steps if arm in self.calibrations else None

    def of(self, point: Point) -> RunRecord:
        """Return the record of a run."""
        return next(run for run in self.runs if (run.arm, run.seed) == (point.arm, point.seed))


def read_record(folder: Path) -> SweepRecord | None:
    """Return the record in a folder; None without one.

    Raises:
        ResumeError: it can't be read.
    """
    path = folder / NAME
    try:
        values = parse_json(path.read_text(encoding="utf-8"))
        if values.pop("format") != FORMAT:
            raise ValueError(f"it is no sweep of format {FORMAT}")
        values.pop("chomp")
        runs = [RunRecord(**run) for run in values.pop("runs")]
        for run in runs:
            run.state = State(run.state)
        known = {arm: Calibration(**each) for arm, each in values.pop("calibrations").items()}
        return SweepRecord(**values, calibrations=known, runs=runs)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ResumeError(f"{path} can't be read ({reason}); give another --dir") from error


def record_of(plan: Plan, cpu_threads: int) -> SweepRecord:
    """Return the record of a sweep that begins."""
    return extended(
        SweepRecord(
            str(plan.config),
            plan.base.model_dump(mode="json"),
            _budget(plan),
            plan.halving,
            plan.seeds,
            {},
            cpu_threads=cpu_threads,
        ),
        plan,
    )


def extended(record: SweepRecord, plan: Plan) -> SweepRecord:
    """Return the record with the arms and seeds that are new."""
    known = {(run.arm, run.seed): run for run in record.runs}
    runs = [
        known.get((point.arm, point.seed)) or RunRecord(point.arm, point.seed, point.run)
        for point in plan.points()
    ]
    arms = {name: list(arm.overrides) for name, arm in plan.arms.items()}
    return dataclasses.replace(record, seeds=plan.seeds, arms=arms, runs=runs)


def check_same(record: SweepRecord, plan: Plan, folder: Path) -> None:
    """Check that the sweep in a folder is this one, or a part of it.

    Raises:
        ResumeError: it isn't; says what differs.
    """
    lines = [str(change) for change in changes(record.base, plan.base.model_dump(mode="json"))]
    lines += _differences(record, plan)
    lost = [name for name in record.arms if name not in plan.arms]
    if lost:
        lines.append(f"arms: without {', '.join(lost[:5])}{', ...' if len(lost) > 5 else ''}")
    if lines:
        raise ResumeError(
            "\n".join(
                [
                    f"{folder} holds another sweep:",
                    *(f"  {line}" for line in lines),
                    "  give its values back (more values and more seeds may be added), or another "
                    "--dir",
                ]
            )
        )


def _differences(record: SweepRecord, plan: Plan) -> Sequence[str]:
    lines = []
    if record.budget != _budget(plan):
        lines.append(f"--budget: was {record.budget}, now {_budget(plan)}")
    if record.halving != plan.halving:
        lines.append(f"--halving: was {record.halving}, now {plan.halving}")
    if record.halving and list(record.arms) != list(plan.arms):
        lines.append("--halving: arms can't be added, as others are left behind already")
    if record.seeds > plan.seeds or (record.halving and record.seeds != plan.seeds):
        lines.append(f"--seeds: was {record.seeds}, now {plan.seeds}")
    return lines


def _budget(plan: Plan) -> str | None:
    return None if plan.budget is None else f"{plan.budget.amount:g}{plan.budget.unit}"
