"""The record of a run while one of its starts goes on."""

import os
import platform
import secrets
import shlex
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from chomp.run.heartbeat import HeartbeatReading, read_heartbeat
from chomp.run.record import (
    Attempt,
    EventKind,
    Parent,
    RunRecord,
    later_event,
    later_events,
    read_record,
    replayed_steps,
    with_heartbeat,
)
from chomp.system.append_file import AppendFile
from chomp.system.atomic_file import replace_text
from chomp.system.console import Console

FEW = 20
"""Events of a start for each of which the record is written whole; later ones are appended to a
file beside it, as writing all again for each of thousands would take longer than the run."""
Compare = Callable[[Mapping[str, Any], Mapping[str, Any]], Iterable[Any]]
"""Returns differences that have `key`, `old` and `new`."""


class RunRecorder:
    """Keeps `run.json`: each change is on disk when the method returns, but for many events.

    A file that can't be written is a warning, not an end: the next change writes everything.
    After `start`, the methods may be called from any thread.
    """

    def __init__(self, path: Path, heartbeat: Path, console: Console, *, keep: bool = True):
        """Read what earlier starts left; the end of one that was killed comes from its heartbeat.

        A broken file is moved aside with a warning.

        Args:
            path: that of `run.json`.
            heartbeat: that of the start before, not yet replaced by this one's.
            console: shows warnings.
            keep: write the file; else another process does.
        """
        self._path, self._console, self._keep = path, console, keep
        self._lock = threading.Lock()
        self._later: AppendFile | None = None
        self.record = self._read() or RunRecord(secrets.token_hex(8))
        if self.record.starts:
            self._complete(read_heartbeat(heartbeat))

    @property
    def number(self) -> int:
        """Number of the newest start, from 1."""
        return len(self.record.starts)

    @property
    def skipped_batches(self) -> list[int]:
        """The batches excluded for good, ascending."""
        return self.record.skipped_batches

    @property
    def reached(self) -> int:
        """The last step that any start has finished."""
        return max((start.last_step for start in self.record.starts), default=0)

    @property
    def rewinds(self) -> int:
        """Number of rewinds, in all starts."""
        events = (event for start in self.record.starts for event in start.events)
        return sum(event["kind"] == EventKind.REWIND for event in events)

    def start(
        self, *, time: float, versions: dict[str, str], config: dict[str, Any], compare: Compare
    ) -> None:
        """Begin the entry of this start.

        Args:
            time: when the command began, in seconds since 1970.
            versions: those of the packages that matter.
            config: all values.
            compare: finds the differences between two configurations.
        """
        record = self.record
        changes = compare(record.config, config) if record.starts else []
        entry = Attempt(
            number=self.number + 1,
            time=time,
            pid=os.getpid(),
            host=socket.gethostname(),
            python=platform.python_version(),
            command=shlex.join(sys.argv),
            versions=versions,
            changes=[{"key": c.key, "old": c.old, "new": c.new} for c in changes],
        )
        with self._lock:
            record.config = config
            record.starts.append(entry)
            self._write()

    def on_device(self, device: str) -> None:
        """Record what the start computes on."""
        with self._lock:
            self._current.device = device
            self._write()

    def began_from(self, parent: Parent) -> None:
        """Record the run that this one has its first parameters from."""
        with self._lock:
            self.record.parent = parent
            self._write()

    def resumed(self, step: int, fallbacks: Sequence[Mapping[str, Any]] = ()) -> None:
        """Record the checkpoint that the start goes on from.

        Args:
            step: that of the checkpoint.
            fallbacks: `step` and `reason` of newer checkpoints that were passed over.
        """
        with self._lock:
            start = self._current
            start.checkpoint = start.from_step = start.last_step = step
            start.fallbacks = [dict(fallback) for fallback in fallbacks]
            self._write()

    def event(self, kind: EventKind, **values: Any) -> None:
        """Record something that happened just now."""
        with self._lock:
            self._note(kind, values)
            if len(self._current.events) <= FEW:
                self._write()
            elif self._keep:
                self._append()

    def rewind(self, from_step: int, to_step: int, batches: Sequence[int]) -> None:
        """Record a return to an earlier step, and the batches that are skipped from now on."""
        values = {"from_step": from_step, "to_step": to_step, "batches": list(batches)}
        with self._lock:
            self._note(EventKind.REWIND, values)
            self._skip(batches)
            self._write()

    def skip(self, batches: Iterable[int]) -> None:
        """Exclude batches for good."""
        with self._lock:
            self._skip(batches)
            self._write()

    def end(self, how: str, reading: HeartbeatReading, *, error: str | None = None) -> None:
        """Complete the entry of this start.

        Args:
            how: `finished`, `stopped` and the like.
            reading: the last reading of the heartbeat.
            error: what ended it, if something did.
        """
        with self._lock:
            start = with_heartbeat(self._current, reading, running=True)
            start.ended, start.error, start.end_time = how, error, time.time()
            self._replace_last(start)
            self._write()

    @property
    def _current(self) -> Attempt:
        return self.record.starts[-1]

    def _replace_last(self, start: Attempt) -> None:
        self.record.starts[-1] = start
        start.replayed_steps = replayed_steps(self.record.starts)

    def _complete(self, reading: HeartbeatReading | None) -> None:
        """Complete the entry of the start before, which was killed if it has no end."""
        if self._current.ended is None:
            self._replace_last(with_heartbeat(self._current, reading, running=False))

    def _note(self, kind: EventKind, values: dict[str, Any]) -> None:
        # JSON has no NaN.
        known = {
            name: str(value) if isinstance(value, float) and not isfinite(value) else value
            for name, value in values.items()
        }
        self._current.events.append({"time": time.time(), "kind": str(kind)} | known)

    def _skip(self, batches: Iterable[int]) -> None:
        self.record.skipped_batches = sorted({*self.record.skipped_batches, *batches})

    def _read(self) -> RunRecord | None:
        try:
            return read_record(self._path)
        except ValueError as error:
            reason = str(error)
        if not self._keep:
            return None
        names = (self._path.with_name(f"{self._path.name}.broken-{i}") for i in range(1, 1000))
        aside = next(path for path in names if not path.exists())
        try:
            self._path.rename(aside)
        except OSError as error:
            aside = Path(f"nowhere ({error.strerror})")
        self._console.warn(
            f"{self._path} is broken ({reason}); moved to {aside}. The history before "
            "this start is lost, and the batches that were skipped after divergences, as far as "
            "the checkpoint doesn't know them"
        )
        return None

    def _write(self) -> None:
        if not self._keep:
            return
        try:
            replace_text(self._path, self.record.to_json())
            self._later = None
            later_events(self._path).unlink(missing_ok=True)
        except OSError as error:
            self._console.warn(
                f"{self._path} can't be written ({error.strerror}); the run goes on, and "
                "the next event tries again"
            )

    def _append(self) -> None:
        """Write the newest event alone; the record has it at the end of the start."""
        if self._later is None:
            self._later = AppendFile(later_events(self._path), self._console)
        self._later.write(later_event(self.record.run, self._current))
