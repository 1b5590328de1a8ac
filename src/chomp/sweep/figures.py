"""What a run of a sweep has reached, and what it would have taken by itself; from its folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from chomp.report.metrics_file import Columns, MetricsFile
from chomp.run.goodput import lasting_shares
from chomp.run.heartbeat import Phase, read_heartbeat
from chomp.run.record import Attempt, read_record, with_heartbeat
from chomp.run.run_folder import RunFolder
from chomp.sweep.plan import METRICS

BITS, LOSS = "eval_bits_per_byte", "eval_loss"
AT_FIRST = (Phase.STARTING, Phase.RESTORING)
LATER = (Phase.WAITING, Phase.EVALUATING, Phase.SAMPLING, Phase.SAVING, Phase.CLOSING)


class Start(NamedTuple):
    """What a process of its own would have cost a run, in seconds."""

    process: float
    """Until it could begin with the run."""
    compiling: float
    """Compiling, or loading, the programs that runs before it had in memory already."""
    compiled: float
    """Of that, what the run itself has spent."""


@dataclass(frozen=True)
class Evaluations:
    """The evaluations of a run.

    Attributes:
        steps: after which they were.
        seconds: since the start of a process of its own.
        bits_per_byte: NaN where the texts have no bytes.
        loss: nats per token.
    """

    steps: Float[np.ndarray, "evaluation"]
    seconds: Float[np.ndarray, "evaluation"]
    bits_per_byte: Float[np.ndarray, "evaluation"]
    loss: Float[np.ndarray, "evaluation"]

    def at_step(self, name: str, step: int) -> float | None:
        """Return `bits_per_byte` or `loss` after a step; None where there was no evaluation."""
        found = getattr(self, name)[self.steps == step]
        return float(found[-1]) if len(found) and np.isfinite(found[-1]) else None

    def at_seconds(self, name: str, seconds: float) -> float | None:
        """Return a score after so many seconds, on the line between two evaluations.

        None where that is before the first or after the last one.
        """
        values = getattr(self, name)
        if not len(values) or not self.seconds[0] <= seconds <= self.seconds[-1] + 1e-6:
            return None
        found = float(np.interp(seconds, self.seconds, values))
        return found if np.isfinite(found) else None


class Figures(NamedTuple):
    """What a run has reached."""

    evaluations: Evaluations
    step: int
    tokens: int
    step_seconds: float | None
    """Median of the rows."""
    seconds: float | None
    """What the whole would have taken in a process of its own; of a run that was cut off without
    what was lost."""
    starts: int


def read_columns(folder: Path) -> Columns:
    """Return the rows of a run's metrics as columns; empty ones before the first."""
    metrics = MetricsFile(folder / METRICS)
    metrics.refresh()
    return metrics.columns


def read_starts(folder: Path) -> list[Attempt]:
    """Return the processes of a run that isn't running now; none before its first."""
    paths = RunFolder(folder)
    record = read_record(paths.record)
    if record is None:
        return []
    reading = read_heartbeat(paths.heartbeat)
    return [with_heartbeat(start, reading, running=False) for start in record.starts]


def read_figures(folder: Path, start: Start) -> Figures:
    """Return the figures of a run that isn't running now.

    Raises:
        OSError, ValueError: its files can't be read.
    """
    columns, starts = read_columns(folder), read_starts(folder)
    steps = columns["step"]
    if not len(steps):
        none = np.zeros(0)
        return Figures(Evaluations(none, none, none, none), 0, 0, None, None, len(starts))
    times = np.nan_to_num(_column(columns, "step_time_s"))
    training = np.cumsum(np.diff(steps, prepend=0.0) * times)
    first = sum(starts[0].seconds.get(phase, 0.0) for phase in AT_FIRST) if starts else 0.0
    head = start.process + first + start.compiling
    others = _others(starts, start.compiled) - (training[-1] - _stepping(starts))
    hidden = min(_first_wait(columns), max(0.0, start.compiling - start.compiled))
    elapsed = head + training - hidden + others * steps / steps[-1]
    there = ~np.isnan(_column(columns, LOSS))
    return Figures(
        Evaluations(
            steps[there],
            elapsed[there],
            _column(columns, BITS)[there],
            _column(columns, LOSS)[there],
        ),
        int(steps[-1]),
        int(np.nan_to_num(_column(columns, "tokens_seen"))[-1]),
        float(np.median(times[times > 0])) if (times > 0).any() else None,
        float(elapsed[-1]),
        len(starts),
    )


def _column(columns: Columns, key: str) -> Float[np.ndarray, "row"]:
    return columns.get(key, np.full(len(columns["step"]), np.nan))


def _first_wait(columns: Columns) -> float:
    """Return the seconds that a run waited for its first batch, beyond what it waits usually.

    In a process of its own the batch is made while the step is compiled.
    """
    done = np.diff(columns["step"], prepend=0.0)
    waits = np.nan_to_num(_column(columns, "step_time_s") * _column(columns, "data_wait_share"))
    usual = (waits * done)[1:].sum() / max(1.0, done[1:].sum())
    return float(max(0.0, waits[0] - usual) * done[0])


def _stepping(starts: list[Attempt]) -> float:
    """Return the seconds of all steps that were not done again."""
    shares = lasting_shares(starts)
    return sum(start.seconds.get(Phase.TRAINING, 0.0) * shares[start.number] for start in starts)


def _others(starts: list[Attempt], compiled: float) -> float:
    """Return the seconds of all else than start, compile and steps."""
    total = sum(start.seconds.get(phase, 0.0) for start in starts for phase in LATER)
    compiling = sum(start.seconds.get(Phase.COMPILING, 0.0) for start in starts)
    return total - max(0.0, compiled - compiling)
