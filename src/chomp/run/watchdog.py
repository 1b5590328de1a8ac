"""A thread that notices when a run doesn't get on, and says where it hangs."""

import faulthandler
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from chomp.run.heartbeat import Heartbeat, HeartbeatReading, Phase
from chomp.system.console import Console
from chomp.system.terminal import open_followed

log = logging.getLogger(__name__)

INTERVAL = 1.0
"""Seconds between looks."""


class Stall(NamedTuple):
    """Something that goes on for too long, or that went on again."""

    what: str
    """For example `training` or `saving in the background`."""
    step: int
    seconds: float
    """Seconds without a sign of life."""
    over: bool
    """Whether it went on."""


class Watchdog:
    """Looks at a heartbeat from a daemon thread, and keeps it alive meanwhile.

    A stall is reported after `seconds` without a sign of life, after twice as long, and so on, and
    once it is over. Only time in which the watchdog itself could run counts, so that a process
    that was suspended isn't blamed. Where it can't run since something keeps the GIL, Python's own
    fault handler writes the stacks after twice `seconds`.
    """

    def __init__(
        self,
        heartbeat: Heartbeat,
        *,
        seconds: float,
        log_file: Path | None,
        console: Console,
        note: Callable[[Stall], None],
    ):
        """Prepare to watch.

        Args:
            heartbeat: the one of this process.
            seconds: time without a sign of life that makes a stall; 0: report none.
            log_file: gets the stacks; None: they are kept nowhere.
            console: shows stalls.
            note: takes each stall.
        """
        self._heartbeat, self._seconds = heartbeat, seconds
        self._log_file, self._console, self._note = log_file, console, note
        self._interval = min(INTERVAL, seconds / 5) if seconds else INTERVAL
        self._watched: dict[int, _Watched] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look_on, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def close(self) -> None:
        """Stop watching; a callback that hangs isn't waited for."""
        self._stop.set()
        self._thread.join(timeout=1.0)

    def _look_on(self) -> None:
        if not self._seconds or self._log_file is None:
            self._watch(None)
            return
        with open(self._log_file, "a", opener=open_followed) as stacks:
            try:
                self._watch(stacks.fileno())
            finally:
                faulthandler.cancel_dump_traceback_later()

    def _watch(self, stacks: int | None) -> None:
        """Watch until the end; stacks of a process that hangs with the GIL go to that file."""
        last = time.monotonic()
        while not self._stop.wait(self._interval):
            if stacks is not None:
                faulthandler.dump_traceback_later(2 * self._seconds, repeat=True, file=stacks)
            now, reading = time.monotonic(), self._heartbeat.now()
            if self._seconds:
                self._look(reading, min(now - last, 2 * self._interval))
            last = now

    def _look(self, reading: HeartbeatReading, elapsed: float) -> None:
        going_on = {
            number: (f"{work.name} in the background", work.step, 0)
            for number, work in self._heartbeat.work().items()
        }
        if reading.phase is not Phase.ENDED:
            going_on[0] = (str(reading.phase), reading.step, self._heartbeat.beats)
        for number in list(self._watched):
            watched = self._watched[number]
            if going_on.get(number) == watched.what:
                watched.seconds += elapsed
                if watched.seconds >= watched.limit:
                    watched.limit *= 2
                    self._report(watched)
            else:
                del self._watched[number]
                if watched.limit > self._seconds:
                    self._went_on(watched)
        for number, what in going_on.items():
            self._watched.setdefault(number, _Watched(what, self._seconds))

    def _report(self, watched: "_Watched") -> None:
        what, step, _ = watched.what
        since = time.strftime("%H:%M:%S", time.localtime(time.time() - watched.seconds))
        # Critical: no level of logging leaves it out.
        log.critical("%s, step %d: stalled; the stacks of all threads:\n%s", what, step, _stacks())
        where = (
            f"the stacks of all threads are in {self._log_file}"
            if self._log_file
            else "set logging.log_file to have the stacks of all threads"
        )
        self._console.warn(
            f"{what}, step {step}: no progress for {watched.seconds:.0f} s (since {since}); {where}"
        )
        self._note(Stall(what, step, watched.seconds, over=False))

    def _went_on(self, watched: "_Watched") -> None:
        what, step, _ = watched.what
        self._console.message(f"{what}, step {step}: it goes on, after {watched.seconds:.0f} s")
        self._note(Stall(what, step, watched.seconds, over=True))


class _Watched:
    """Something seen unchanged for `seconds`; a stall from `limit` on."""

    def __init__(self, what: tuple[str, int, int], limit: float):
        self.what, self.limit, self.seconds = what, limit, 0.0


def _stacks() -> str:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    parts = []
    for ident, frame in sys._current_frames().items():
        if ident != threading.get_ident():
            stack = "".join(traceback.format_stack(frame))
            parts.append(f"thread {names.get(ident, ident)}:\n{stack}")
    return "\n".join(parts)
