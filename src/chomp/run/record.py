"""The record of a run's starts, as `run.json` holds it."""

import dataclasses
import json
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from chomp.run.heartbeat import HeartbeatReading, Phase
from chomp.system.json_text import parse_json

FORMAT = 1
LARGEST = 1e11
"""Larger than any number of a record, be it steps or seconds; dates end soon after."""


class EventKind(StrEnum):
    """Kinds of events between a run's start and its end."""

    STOP = "stop signal"
    SAVE = "save signal"
    REWIND = "rewind"
    """Has `from_step`, `to_step` and `batches`, the skipped ones."""
    DIVERGED = "diverged"
    NOT_SAVED = "not saved"
    """A checkpoint that the disk didn't take; has `what`."""
    STALL = "stall"
    WENT_ON = "went on"
    """After a stall."""


@dataclass
class Attempt:
    """One process of the run. Times are seconds since 1970."""

    number: int
    time: float
    pid: int
    host: str
    python: str
    command: str
    versions: dict[str, str]
    changes: list[dict[str, Any]] = field(default_factory=list)
    """`key`, `old` and `new` of the configuration's differences to the start before."""
    device: str | None = None
    from_step: int = 0
    """Finished steps that it began with."""
    checkpoint: int | None = None
    """Step of the checkpoint that it went on from; None: it began at the beginning."""
    fallbacks: list[dict[str, Any]] = field(default_factory=list)
    """`step` and `reason` of newer checkpoints that were passed over."""
    events: list[dict[str, Any]] = field(default_factory=list)
    """`time`, `kind` and more of what happened."""
    ended: str | None = None
    """None while it runs, or when it was killed and no other start came."""
    end_time: float | None = None
    last_step: int = 0
    """Finished steps at its end."""
    replayed_steps: int = 0
    """Steps done again, that is those that this or an earlier start had finished before."""
    phase: str | None = None
    """Its last phase."""
    error: str | None = None
    """Type and message of the error that ended it."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Time spent in each phase."""


@dataclass
class Parent:
    """The run that another one began from."""

    run: str
    """Its identifier."""
    folder: str
    """Where it was then."""
    step: int
    """Finished steps of the checkpoint that was taken."""
    kind: str
    """`branch`: everything was taken; `init`: the parameters alone."""
    allow_change: list[str] = field(default_factory=list)
    """Dotted keys whose values the branch has changed: it goes on from that step all the same."""


@dataclass
class RunRecord:
    """All of `run.json`."""

    run: str
    """Identifies the run, wherever its folder is moved or copied."""
    skipped_batches: list[int] = field(default_factory=list)
    """Numbers of the batches that rewinding excluded for good, ascending."""
    config: dict[str, Any] = field(default_factory=dict)
    """Of the newest start."""
    starts: list[Attempt] = field(default_factory=list)
    parent: Parent | None = None
    """None: it began from nothing. The file then has no such key."""

    def to_json(self) -> str:
        """Return the text of the file."""
        values = {"format": FORMAT} | dataclasses.asdict(self)
        if self.parent is None:
            del values["parent"]
        return json.dumps(values, indent=1, allow_nan=False) + "\n"

    @staticmethod
    def from_json(text: str) -> "RunRecord":
        """Read the text of the file.

        Raises:
            ValueError: it is not such a record; says what is wrong.
        """
        values = parse_json(text)
        if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
            raise ValueError(f"it is no record of format {FORMAT}")
        if (parent := values.get("parent")) is not None:
            values["parent"] = _made(Parent, parent)
        record = _made(RunRecord, values)
        record.starts = [_made(Attempt, start) for start in record.starts]
        for start in record.starts:
            if not all(map(_is_event, start.events)):
                raise ValueError(f"an event of start {start.number} is not as it should be")
            if not all({"key", "old", "new"} <= change.keys() for change in start.changes):
                raise ValueError(f"a change of start {start.number} is not as it should be")
        return record


def read_record(path: Path) -> RunRecord | None:
    """Return the record in `path`; None if there is no such file.

    Raises:
        ValueError: it is broken, or can't be read.
    """
    try:
        record = RunRecord.from_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ValueError(str(error.strerror)) from error
    _add_later_events(record, later_events(path))
    return record


def later_events(path: Path) -> Path:
    """Return the path of the file with the events that the record in `path` doesn't have yet."""
    return path.with_name("run.events.jsonl")


def later_event(run: str, start: Attempt) -> str:
    """Return the line for a start's newest event."""
    values = {"run": run, "start": start.number, "event": len(start.events)} | start.events[-1]
    return json.dumps(values, allow_nan=False) + "\n"


def _add_later_events(record: RunRecord, path: Path) -> None:
    """Add the events that a killed start had no time to write to the record."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError:
        return
    starts = {start.number: start for start in record.starts}
    for line in lines:
        try:
            values = parse_json(line)
            run, number, event = (values.pop(key) for key in ("run", "start", "event"))
        except (ValueError, KeyError, TypeError, AttributeError):  # cut short
            continue
        start = starts.get(number) if isinstance(number, int) else None
        if start and run == record.run and event == len(start.events) + 1 and _is_event(values):
            start.events.append(values)


def _made(kind: type[Any], values: Any) -> Any:
    try:
        made = kind(**values)
    except TypeError as error:
        raise ValueError(str(error)) from error
    for name, wanted in typing.get_type_hints(kind).items():
        if not _fits(getattr(made, name), wanted):
            raise ValueError(f"{name} is {getattr(made, name)!r}")
    return made


def _fits(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, types.UnionType):
        return any(_fits(value, option) for option in typing.get_args(wanted))
    kind, parts = typing.get_origin(wanted) or wanted, typing.get_args(wanted)
    if kind is Any or wanted is Attempt or wanted is Parent:  # they are made one by one
        return True
    if kind is list:
        return isinstance(value, list) and all(_fits(item, parts[0]) for item in value)
    if kind is dict:
        return isinstance(value, dict) and all(_fits(item, parts[1]) for item in value.values())
    if kind in (int, float):
        return isinstance(value, kind | int) and abs(value) < LARGEST  # NaN isn't
    return isinstance(value, kind)


def _is_event(event: dict[str, Any]) -> bool:
    numbers = ["time"] + ["from_step", "to_step"] * (event.get("kind") == EventKind.REWIND)
    return isinstance(event.get("kind"), str) and all(
        _fits(event.get(name), float) for name in numbers
    )


def with_heartbeat(start: Attempt, reading: HeartbeatReading | None, *, running: bool) -> Attempt:
    """Return `start` with what the heartbeat knows of it, as far as it has no end yet.

    Args:
        start: the newest one.
        reading: the run folder's heartbeat; one of another process is ignored.
        running: whether the process is there; if not, it was killed.
    """
    if start.ended is not None:
        return start
    mine = reading is not None and (reading.start, reading.pid) == (start.number, start.pid)
    ended = None if running else "killed"
    if reading is None or not mine:
        return dataclasses.replace(start, ended=ended)
    if reading.phase is Phase.ENDED and not running:
        ended = "ended"  # by itself, but it could not write so
    return dataclasses.replace(
        start,
        ended=ended,
        end_time=None if running else reading.alive,
        last_step=reading.finished,
        phase=str(reading.phase),
        seconds=dict(reading.seconds_until(reading.alive)),
    )


class StepRange(NamedTuple):
    """Steps done in a row, `begin` excluded."""

    start: int
    """Number of the start."""
    begin: int
    end: int


def step_ranges(starts: Sequence[Attempt]) -> list[StepRange]:
    """Return the steps done, in the order in which they were; a rewind begins a new range."""
    found = []
    for start in starts:
        begin = start.from_step
        for event in start.events:
            if event["kind"] == EventKind.REWIND:
                found.append(StepRange(start.number, begin, event["from_step"]))
                begin = event["to_step"]
        found.append(StepRange(start.number, begin, start.last_step))
    return [done for done in found if done.end > done.begin]


def replayed_steps(starts: Sequence[Attempt]) -> int:
    """Return how many steps the last start did that had been finished before."""
    reached = count = 0
    for done in step_ranges(starts):
        if done.start == starts[-1].number:
            count += max(0, min(done.end, reached) - done.begin)
        reached = max(reached, done.end)
    return count
