"""The status of a run as lines for the user."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

from chomp.commands.status import History, Lineage, Status
from chomp.run.lineage import Descendant
from chomp.run.record import Attempt
from chomp.system.terminal import one_line


def status_lines(status: Status, now: float | None = None) -> list[str]:
    """Return the lines: the present, the history, what the time went into."""
    now = time.time() if now is None else now
    lines = [*_present(status, now), *_lineage(status.lineage)]
    if status.history.starts:
        lines += _history(status.history)
    lines += [f"warning: {problem}" for problem in status.problems]
    return [one_line(line) for line in lines]  # files of the run may hold anything


def state_line(status: Status, now: float | None = None) -> str:
    """Return in a line what the run's process does, or how it ended."""
    return one_line(_state(status, time.time() if now is None else now))


def _lineage(lineage: Lineage) -> Iterator[str]:
    if parent := lineage.parent:
        what = "branch of" if parent.kind == "branch" else "weights of"
        yield f"began as   {what} {parent.folder} after step {parent.step}"
    if lineage.descendants:
        yield "runs that began from it"
        yield from _tree(lineage.descendants, "  ")


def _tree(runs: Sequence[Descendant], indent: str) -> Iterator[str]:
    for run in runs:
        what = "" if run.kind == "branch" else " (weights only)"
        yield f"{indent}{run.folder}  after step {run.step}{what}"
        yield from _tree(run.children, indent + "  ")


def _history(history: History) -> Iterator[str]:
    yield "history"
    for start in history.starts:
        yield from _start(start)
    goodput = history.goodput
    yield f"goodput    {goodput.total:.0f} s since the first start"
    for part, seconds in goodput.seconds.items():
        if seconds >= 0.05:
            yield f"  {part:<11} {goodput.share(part):6.1%} {seconds:12.1f} s"


def _present(status: Status, now: float) -> Iterator[str]:
    yield f"run        {status.folder}" + (f" ({status.run})" if status.run else "")
    yield f"state      {_state(status, now)}"
    step, steps, row, evaluation = status.progress
    of = f" of {steps} ({step / steps:.1%})" if steps else ""
    tokens = f", {row['tokens_seen']:,} tokens seen at step {row['step']}" if row else ""
    yield f"progress   step {step}{of}{tokens}"
    if row:
        yield (
            f"loss       {row['loss']:.4f} nats per token (step {row['step']}), "
            f"{row['step_time_s'] * 1e3:.0f} ms/step, {row['tokens_per_sec']:,.0f} tok/s"
        )
    if evaluation:
        yield (
            f"evaluation {evaluation['eval_loss']:.4f} nats per token, "
            f"{evaluation['eval_bits_per_byte']:.4f} bits per byte (step {evaluation['step']})"
        )
    if status.seconds_left is not None:
        yield f"time left  {duration(status.seconds_left)}, of steps alone"
    yield "checkpoint " + ("none" if status.checkpoint is None else f"step {status.checkpoint}")
    if cache := status.compile_cache:
        most = f" of at most {cache['gb']:g} GB" if cache["gb"] else ""
        held = f"{cache['programs']:,} compiled programs, {cache['bytes'] / 1e6:,.1f} MB{most}"
        yield f"cache      {cache['folder']}: {held}"
    if skipped := status.history.skipped_batches:
        yield f"skipped    batches {', '.join(map(str, skipped))}"


def _state(status: Status, now: float) -> str:
    process, starts = status.process, status.history.starts
    if not process.running:
        return f"not running; {_ending(starts[-1])}" if starts else "not running"
    assert process.since is not None and process.alive is not None
    state = f"{process.phase} since {duration(now - process.since)}, process {process.pid}"
    silent = now - process.alive
    return state + (f"; no sign of life for {duration(silent)}" if silent > 10 else "")


def _start(start: Attempt) -> Iterator[str]:
    source = f"from step {start.from_step}" if start.from_step else "from the beginning"
    again = f", {start.replayed_steps} steps done again" if start.replayed_steps else ""
    yield f"  start {start.number}  {_clock(start.time)}  {source}; {_ending(start)}{again}"
    for change in start.changes:
        yield f"    changed  {change['key']}: was {change['old']!r}, now {change['new']!r}"
    for fallback in start.fallbacks:
        yield f"    passed over  {_values(fallback)}"
    for event in start.events:
        values = {key: value for key, value in event.items() if key not in ("time", "kind")}
        yield f"    {_clock(event['time'])}  {event['kind']}  {_values(values)}".rstrip()


def _ending(start: Attempt) -> str:
    if start.ended is None:
        return f"running, step {start.last_step} finished"
    doing = f" while {start.phase}" if start.ended == "killed" and start.phase else ""
    lasted = f", {duration(start.end_time - start.time)}" if start.end_time else ""
    error = f" ({start.error.splitlines()[0]})" if start.error else ""
    return f"{start.ended}{doing} after step {start.last_step}{error}{lasted}"


def _values(values: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def duration(seconds: float) -> str:
    """Return a length of time in the two units that matter: `12 s`, `3 min 5 s`, `2 h 10 min`."""
    whole = max(0, round(seconds))
    for size, name, smaller, small_name in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            return f"{whole // size} {name} {whole % size // smaller} {small_name}"
    return f"{whole} s"
