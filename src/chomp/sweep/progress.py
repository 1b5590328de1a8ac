"""How far the runs of a sweep are, for whoever looks on."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from chomp.config import Config
from chomp.report.metrics_file import Columns, MetricsFile
from chomp.run.heartbeat import Phase, read_heartbeat
from chomp.run.run_folder import RunFolder
from chomp.sweep.figures import BITS, LOSS
from chomp.sweep.plan import METRICS, Point
from chomp.sweep.record import ENDED, RunRecord, State, SweepRecord

PHASES = (Phase.TRAINING, Phase.WAITING, Phase.EVALUATING, Phase.SAMPLING, Phase.SAVING)
"""That a step has a share of."""


class RunRow(NamedTuple):
    """A run as a line of a table; None where there is no such value yet."""

    arm: str
    seed: int
    doing: str
    step: int
    steps: int
    loss: float | None
    score: float | None
    """Bits per byte, or the evaluation loss where there are none, of the newest evaluation."""


class Progress:
    """Reads the folders of a sweep's runs; those that run as often as it is asked.

    Args:
        record: of the sweep.
        folder: of the sweep.
        configs: of the arms, with the steps that they are trained for.
    """

    def __init__(self, record: SweepRecord, folder: Path, configs: Mapping[str, Config]):
        self._record, self._folder, self._configs = record, folder, configs
        self._metrics: dict[str, MetricsFile] = {}
        self._ends: dict[str, int] = {}
        self.running: set[str] = set()
        """Names of the runs that are being trained."""
        self.later = 0
        """Steps that come after those that were begun with, in all runs together."""

    def begin(self, points: Sequence[Point], stops: Mapping[str, int]) -> None:
        """Say which runs come now, and after which steps those of an arm stop."""
        self._ends = {
            point.run: stops.get(point.arm, self._configs[point.arm].train.steps)
            for point in points
        }

    def rows(self) -> list[RunRow]:
        """Return a line for each run of the sweep."""
        return [self.row(run) for run in self._record.runs]

    def row(self, run: RunRecord) -> RunRow:
        """Return the line of a run."""
        columns = self._columns(run)
        doing, step = str(run.state), int(columns["step"][-1]) if len(columns["step"]) else 0
        if run.run in self.running:
            doing = "starting"
            if reading := read_heartbeat(RunFolder(self._folder / run.run).heartbeat):
                doing, step = str(reading.phase), max(step, reading.finished)
                doing = "starting" if reading.phase is Phase.ENDED else doing
        elif run.state is State.WAITING and step:
            doing = f"stopped at {step}"
        steps = self._configs[run.arm].train.steps
        score = _last(columns, BITS)
        if score is None:
            score = _last(columns, LOSS)
        return RunRow(run.arm, run.seed, doing, step, steps, _last(columns, "loss"), score)

    def _columns(self, run: RunRecord) -> Columns:
        known = self._metrics.get(run.run)
        if known is None:
            known = self._metrics[run.run] = MetricsFile(self._folder / run.run / METRICS)
            known.refresh()
        elif run.run in self.running:
            known.refresh()
        return known.columns

    def ended(self, run: str) -> None:
        """Read a run anew, which isn't being trained any more."""
        self._metrics.pop(run, None)

    def _pace(self, run: RunRecord) -> float | None:
        """Return the seconds of a step of a run; None before its first."""
        reading = read_heartbeat(RunFolder(self._folder / run.run).heartbeat)
        if reading and reading.start == 1 and reading.finished:
            return sum(reading.times.seconds[phase] for phase in PHASES) / reading.finished
        columns = self._columns(run)
        if "step_time_s" not in columns:
            return None
        return float(np.nanmedian(columns["step_time_s"]))

    @property
    def done(self) -> int:
        """How many runs have ended, well or not."""
        return sum(run.state in (*ENDED, State.FAILED) for run in self._record.runs)

    def seconds_left(self, jobs: int) -> float | None:
        """Return the seconds until the sweep is through; None: unknown.

        By the seconds that a step took so far in the same arm, or else in any, with its share of
        evaluations, samples and checkpoints.
        """
        paces: dict[str, list[float]] = {}
        left: dict[str, int] = {}
        for run in self._record.runs:
            if pace := self._pace(run):
                paces.setdefault(run.arm, []).append(pace)
            if run.run in self._ends and run.state is State.WAITING:
                end = self._ends[run.run]
                left[run.arm] = left.get(run.arm, 0) + max(0, end - self.row(run).step)
        if not paces:
            return None
        pace = {arm: float(np.median(each)) for arm, each in paces.items()}
        usual = float(np.median(list(pace.values())))
        now = sum(steps * pace.get(arm, usual) for arm, steps in left.items())
        return (now + self.later * usual) / jobs


def _last(columns: Columns, key: str) -> float | None:
    if key not in columns:
        return None
    there = columns[key][~np.isnan(columns[key])]
    return float(there[-1]) if len(there) else None
