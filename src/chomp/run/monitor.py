"""Heartbeat, record and watchdog of one start, opened and closed together."""

import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from chomp.errors import ChompError
from chomp.run.goodput import Goodput, measure
from chomp.run.heartbeat import Heartbeat, Phase
from chomp.run.record import EventKind, with_heartbeat
from chomp.run.recorder import Compare, RunRecorder
from chomp.run.watchdog import Stall, Watchdog
from chomp.system.console import Console


class RunMonitor:
    """Records a start from `begin` to the end of the `with` block, an error that ends it included.

    A start that is refused before `begin` leaves no trace; the watchdog looks at it already.

    Attributes:
        heartbeat: takes phases and steps.
        recorder: takes events.
    """

    def __init__(
        self,
        *,
        record: Path,
        heartbeat: Path,
        log_file: Path | None,
        watchdog_seconds: float,
        started: float,
        console: Console,
        keep: bool = True,
    ):
        """Read what earlier starts left.

        Args:
            record: path of `run.json`.
            heartbeat: path of the heartbeat.
            log_file: gets the stacks of a stall.
            watchdog_seconds: time without progress that makes a stall; 0: never.
            started: `time.perf_counter()` when the command began.
            console: shows lines to the user.
            keep: write the files; else another process does, and they are only read.
        """
        self.recorder = RunRecorder(record, heartbeat, console, keep=keep)
        self._keep = keep
        self.heartbeat = Heartbeat(None, started=started)
        self._path, self._started, self._console = heartbeat, started, console
        self._watchdog = Watchdog(
            self.heartbeat,
            seconds=watchdog_seconds,
            log_file=log_file,
            console=console,
            note=self._stall,
        )
        self._how = "ended"
        self._begun = False

    def begin(self, *, versions: dict[str, str], config: dict[str, Any], compare: Compare) -> None:
        """Begin the start in the record, see `RunRecorder.start`, and keep the heartbeat's file."""
        time_began = time.time() - (time.perf_counter() - self._started)
        self.recorder.start(time=time_began, versions=versions, config=config, compare=compare)
        if self._keep:
            self.heartbeat.keep_in(self._path, self.recorder.number)
        self._begun = True
        if problem := self.heartbeat.problem:
            self._console.warn(f"{problem}; if the run is killed, it can't tell where")

    def resumed(self, step: int, fallbacks: Sequence[Mapping[str, Any]] = ()) -> None:
        """Record the checkpoint that the start goes on from, as `RunRecorder.resumed` does."""
        self.recorder.resumed(step, fallbacks)
        self.heartbeat.finished(step)

    def end(self, how: str) -> None:
        """Say how the start ends (`finished`, `stopped`, ...); recorded at the end of the block."""
        self._how = how
        self.heartbeat.enter(Phase.CLOSING)

    def stopped(self, stop: signal.Signals | None) -> None:
        """Say that this signal ends the start."""
        if stop and self._begun:
            self.recorder.event(EventKind.STOP, signal=stop.name)
        self.end("stopped")

    def lost(self, failure: ChompError) -> None:
        """Record the error that ends the process without the end of the block; in any thread."""
        if self._begun:
            reason = f"{type(failure).__name__}: {failure}"
            self.recorder.end("failed", self.heartbeat.now(), error=reason)

    def goodput(self) -> Goodput:
        """Return what the time of the whole run so far went into."""
        *before, current = self.recorder.record.starts
        current = with_heartbeat(current, self.heartbeat.now(), running=True)
        return measure([*before, current], time.time())

    def __enter__(self) -> "RunMonitor":
        self._watchdog.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._watchdog.close()
        if not self._begun:
            return
        how, reason = self._how, None
        if kind is not None:
            how = "failed" if issubclass(kind, ChompError) else "crashed"
            reason = f"{kind.__name__}: {error}"
        self.recorder.end(how, self.heartbeat.now(), error=reason)
        self.heartbeat.close()

    def _stall(self, stall: Stall) -> None:
        if not self._begun:
            return
        kind = EventKind.WENT_ON if stall.over else EventKind.STALL
        seconds = round(stall.seconds, 1)
        self.recorder.event(kind, phase=stall.what, step=stall.step, seconds=seconds)
