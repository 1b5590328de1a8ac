"""What happened to a run, as marks on its curves."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from chomp.report.metrics_file import Columns, ErrorRow
from chomp.run.record import EventKind

MOST = 300
"""Marks of a run; of more the newest are kept."""


class Mark(NamedTuple):
    """Something that happened at a step."""

    step: int
    kind: str
    """`resume`, `rewind`, `branch`, `rejected`, `diverged`, `stall` or `error`."""
    text: str
    of_start: bool = False
    """Whether the record of a start has it: the list of starts then tells of it."""


def marks_of(
    status: dict[str, Any], columns: Columns, errors: Sequence[ErrorRow]
) -> list[dict[str, Any]]:
    """Return the marks of a run, ascending by step, as JSON values.

    Args:
        status: of the run, as `chomp status --json` prints it.
        columns: its rows of metrics.
        errors: the rows of errors among them.
    """
    found = [*_of_starts(status), *_of_rejected(columns)]
    found += [Mark(row.step, "error", f"{row.error}: {row.reason}") for row in errors]
    return [mark._asdict() for mark in sorted(found, key=lambda mark: mark.step)[-MOST:]]


def _of_starts(status: dict[str, Any]) -> Iterator[Mark]:
    if parent := status["parent"]:
        what = "branched off" if parent["kind"] == "branch" else "began with the weights of"
        step = parent["step"] if parent["kind"] == "branch" else 0
        yield Mark(step, "branch", f"{what} {parent['folder']} after step {parent['step']}")
    before = None
    for start in status["starts"]:
        if before is not None:
            yield Mark(start["from_step"], "resume", _resumed(start, before), True)
        for event in start["events"]:
            if mark := _of_event(event):
                yield mark
        before = start


def _resumed(start: dict[str, Any], before: dict[str, Any]) -> str:
    again = f"; {start['replayed_steps']} steps done again" if start["replayed_steps"] else ""
    changed = "".join(f"; {c['key']}: was {c['old']}, now {c['new']}" for c in start["changes"])
    ended = f"start {before['number']} {before['ended']} after step {before['last_step']}"
    return f"start {start['number']} from step {start['from_step']} ({ended}){again}{changed}"


def _of_event(event: dict[str, Any]) -> Mark | None:
    match event["kind"]:
        case EventKind.REWIND:
            batches = ", ".join(map(str, event.get("batches", ())))
            text = f"back from step {event['from_step']}, without batches {batches}"
            return Mark(int(event["to_step"]), "rewind", text, True)
        case EventKind.DIVERGED if _is_step(event):
            text = f"batch {event.get('batch')} diverged: {event.get('what')}"
            return Mark(event["step"], "diverged", text, True)
        case EventKind.STALL if _is_step(event):
            return Mark(event["step"], "stall", f"no sign of life while {event.get('phase')}", True)
    return None


def _is_step(event: dict[str, Any]) -> bool:
    return type(event.get("step")) is int


def _of_rejected(columns: Columns) -> Iterator[Mark]:
    """Yield the rows since whose predecessors updates were not applied."""
    counts = columns.get("updates_rejected")
    if counts is None:
        return
    counts = np.nan_to_num(counts)
    more = np.diff(counts, prepend=0.0)
    for row in np.flatnonzero(more > 0)[-MOST:]:
        text = f"{int(more[row])} update(s) not applied up to here: loss or gradient not finite"
        yield Mark(int(columns["step"][row]), "rejected", text)
