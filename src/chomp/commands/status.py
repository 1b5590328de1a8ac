"""The status of a run, from its folder; imports nothing slow, so that it is there at once."""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from chomp.run.goodput import Goodput, measure
from chomp.run.heartbeat import HeartbeatReading, read_heartbeat
from chomp.run.lineage import Descendant, descendants
from chomp.run.liveness import is_running
from chomp.run.record import Attempt, Parent, RunRecord, read_record, with_heartbeat
from chomp.run.run_folder import RunFolder
from chomp.system.compile_cache import cache_folder, held
from chomp.system.json_text import parse_json

T = TypeVar("T")

TAIL = 1 << 20
"""Bytes at the end of the metrics in which the newest evaluation is looked for."""

LARGEST = 1e100
"""Larger than any number of a row; Python reads, but doesn't divide, longer ones than a float."""
ROW = ("loss", "step_time_s", "tokens_per_sec", "tokens_seen")
EVALUATION = ("eval_loss", "eval_bits_per_byte")


class ProcessStatus(NamedTuple):
    """The newest process of a run; None where it isn't known. Times are seconds since 1970."""

    running: bool
    pid: int | None
    host: str | None
    phase: str | None
    """The phase that it is in, or was in at its end."""
    since: float | None
    """When that began."""
    alive: float | None
    """The last sign of life."""

    @staticmethod
    def of(reading: HeartbeatReading | None, host: str | None, now: float) -> "ProcessStatus":
        """Return what a heartbeat says of the process, which began on `host`."""
        running = is_running(reading, host, now)
        if reading is None:
            return ProcessStatus(running, None, host, None, None, None)
        return ProcessStatus(
            running, reading.pid, host, str(reading.phase), reading.since, reading.alive
        )


class ProgressStatus(NamedTuple):
    """How far a run is; empty where it isn't known."""

    step: int
    """Finished steps."""
    steps: int | None
    """`train.steps`; None where the configuration can't be read."""
    metrics: dict[str, Any]
    """The newest row of metrics with a loss."""
    evaluation: dict[str, Any]
    """The newest row with an evaluation."""

    def seconds_left(self) -> float | None:
        """Return the seconds until the last step at the pace of the newest row; None: unknown."""
        if not self.steps or not self.metrics:
            return None
        return (self.steps - self.step) * self.metrics["step_time_s"]


class History(NamedTuple):
    """What happened to a run so far."""

    skipped_batches: list[int]
    starts: list[Attempt]
    goodput: Goodput

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        goodput = {
            part: {"seconds": seconds, "share": self.goodput.share(part)}
            for part, seconds in self.goodput.seconds.items()
        }
        starts = [asdict(start) for start in self.starts]
        return {"skipped_batches": self.skipped_batches, "starts": starts, "goodput": goodput}


class Lineage(NamedTuple):
    """Where a run began from, and what began from it."""

    parent: Parent | None
    """None: it began from nothing."""
    descendants: list[Descendant]
    """The runs beside its folder that began from it."""

    @staticmethod
    def of(folder: Path, record: RunRecord | None) -> "Lineage":
        """Look at the record of a run, and at the folders beside it."""
        if record is None:
            return Lineage(None, [])
        return Lineage(record.parent, descendants(folder, record.run))

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        parent = asdict(self.parent) if self.parent else None
        return {"parent": parent, "descendants": [each.as_values() for each in self.descendants]}


@dataclass(frozen=True)
class Status:
    """The status of a run; None or empty where it isn't known."""

    folder: str
    run: str | None
    """Identifies the run."""
    process: ProcessStatus
    progress: ProgressStatus
    checkpoint: int | None
    """The newest step with a good checkpoint."""
    history: History
    lineage: Lineage
    problems: list[str]
    """Files that could not be read, and why."""
    compile_cache: dict[str, Any]
    """Folder of the compiled programs, how many they are, their bytes, and how many may be."""

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the last step of a run that is running; None: unknown."""
        return self.progress.seconds_left() if self.process.running else None

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {
            "folder": self.folder,
            "run": self.run,
            **self.process._asdict(),
            **self.progress._asdict(),
            "seconds_left": self.seconds_left,
            "checkpoint": self.checkpoint,
            **self.history.to_json(),
            **self.lineage.to_json(),
            "problems": self.problems,
            "compile_cache": self.compile_cache,
        }


def read_status(path: Path) -> Status:
    """Look at the files of a run, which may be in the middle of anything.

    Raises:
        ResumeError: the folder holds no run.
    """
    folder = RunFolder(path)
    folder.require_run()
    problems: list[str] = []
    record = _record(folder.record, problems)
    reading, now = read_heartbeat(folder.heartbeat), time.time()
    starts = list(record.starts) if record else []
    process = ProcessStatus.of(reading, starts[-1].host if starts else None, now)
    if starts:
        latest = reading._replace(alive=now) if reading and process.running else reading
        starts[-1] = with_heartbeat(starts[-1], latest, running=process.running)
    config = _config(folder.resolved_config, problems)
    metrics = folder.inside(_setting(config, "logging.metrics_file", str) or "metrics.jsonl")
    rows = list(_last_rows(metrics))
    row = next((row for row in rows if _has(row, ROW)), {})
    step = reading.finished if reading else 0
    if not (step and process.running):  # just begun, or without a heartbeat to the end
        step = max([step, row.get("step", 0), *(start.last_step for start in starts[-1:])])
    evaluation = next((row for row in rows if _has(row, EVALUATION)), {})
    checkpoints = folder.inside(_setting(config, "checkpoint.root_dir", str) or "checkpoints")
    return Status(
        folder=str(path),
        run=record.run if record else None,
        process=process,
        progress=ProgressStatus(step, _setting(config, "train.steps", int), row, evaluation),
        checkpoint=_newest_checkpoint(checkpoints),
        history=History(record.skipped_batches if record else [], starts, measure(starts, now)),
        lineage=Lineage.of(folder.path, record),
        problems=problems,
        compile_cache=_compile_cache(config),
    )


def _compile_cache(config: dict[str, Any]) -> dict[str, Any]:
    name = _setting(config, "runtime.compile_cache", str)
    if name is None:
        return {}
    try:
        folder = cache_folder(name)
    except RuntimeError:  # no home folder
        return {}
    limit = _setting(config, "runtime.compile_cache_gb", float)
    return {"folder": str(folder)} | held(folder)._asdict() | {"gb": limit}


def _record(path: Path, problems: list[str]) -> RunRecord | None:
    try:
        return read_record(path)
    except ValueError as error:
        problems.append(f"{path} is broken ({error})")
        return None


def _config(path: Path, problems: list[str]) -> dict[str, Any]:
    try:
        values = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        problems.append(f"{path} can't be read ({error})")
        return {}
    if not isinstance(values, dict):
        problems.append(f"{path} holds no mapping")
        return {}
    return values


def _setting(config: dict[str, Any], key: str, kind: type[T]) -> T | None:
    """Return a value of the configuration; None if there is none, or none of its type."""
    section, name = key.split(".")
    values = config.get(section)
    value = values.get(name) if isinstance(values, dict) else None
    return value if isinstance(value, kind) else None


def _last_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield rows, the newest first; a line that isn't whole is left out."""
    if not path.is_file():  # a pipe would be waited for
        return
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL))
            lines = file.read().split(b"\n")
    except OSError:
        return
    for line in reversed(lines):
        try:
            row = parse_json(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int) and _has(row, ("step",)):
            yield row


def _has(row: dict[str, Any], names: tuple[str, ...]) -> bool:
    values = [row.get(name) for name in names]
    return all(isinstance(value, int | float) and abs(value) < LARGEST for value in values)


def _newest_checkpoint(folder: Path) -> int | None:
    steps = (
        int(path.parent.name)
        for path in folder.glob("*/manifest.json")
        if path.parent.name.isdecimal()
    )
    return max(steps, default=None)
