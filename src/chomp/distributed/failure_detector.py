"""Signs of life of a run's processes, and the end of this one when another is lost."""

import threading
import time
from typing import Any

from jax.errors import JaxRuntimeError

from chomp.coordinator import Hooks
from chomp.distributed.process_end import ProcessEnd
from chomp.distributed.signs_of_life import SignsOfLife, Silence
from chomp.errors import ChompError, LostError, PeerError

GRACE = 5.0
"""Seconds for the main thread to raise a failure; one that hangs in a device's program can't."""
CLOSING = 30.0
"""Seconds from then on until the process is gone."""


class FailureDetector:
    """Tells the other processes that this one is alive, and notices when one of them isn't.

    It has threads of its own, since the main thread may hang in a program that waits for the
    devices of a process that is gone. One thread talks with process 0, which may hang as well; the
    other one never waits for anything.

    Args:
        signs: exchanges signs of life.
        names: what to call the processes.
        lost_after: seconds without a sign of life.
        end: ends this process where the main thread can't.
        hooks: calls into this process.
    """

    def __init__(
        self,
        signs: SignsOfLife,
        names: list[str],
        lost_after: float,
        end: ProcessEnd,
        hooks: Hooks,
    ):
        self.hooks = hooks
        self.failure: ChompError | None = None
        """Why the run can't go on."""
        self._signs, self._names, self._end = signs, names, end
        self._silence = Silence(lost_after)
        self._raised = threading.Event()
        self._closed = threading.Event()
        self._threads = [
            threading.Thread(target=work, name="chomp-failure-detector", daemon=True)
            for work in (self._talk, self._look_on)
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(self._silence.interval)

    def check(self) -> None:
        """Raise what keeps the run from going on, if anything does.

        Raises:
            PeerError, LostError: another process has failed or is gone.
        """
        if self.failure:
            self._raised.set()
            raise self.failure

    def say_ended(self, how: dict[str, Any]) -> None:
        """Tell the others at once that, and how, this process ends.

        Raises:
            JaxRuntimeError: process 0 can't be reached.
        """
        self._signs.say_ended(how)

    def is_last(self) -> bool:
        """Whether all others have ended or are lost."""
        gone = self._signs.heard.ended() | self._silence.lost | {self._signs.index}
        return len(gone) == len(self._names)

    def explain(self) -> None:
        """Wait until it is known why a program that all devices run has failed here.

        Such a failure is the first that is heard of a process that was killed.

        Raises:
            PeerError, LostError: that is why.
        """
        interval = self._silence.interval
        ends = time.monotonic() + self._silence.shorten() + 5 * interval
        while time.monotonic() < ends:
            self.check()
            time.sleep(interval / 5)

    def look(self) -> None:
        """Exchange signs of life now."""
        try:
            lives = self._signs.exchange().lives
        except JaxRuntimeError:
            return
        for index, life in lives.items():
            if index == self._signs.index:
                continue
            if (ended := life["ended"]) and ended["message"]:
                self._fail(
                    PeerError(f"{self._names[index]} ended: {ended['message']}", ended["exit_code"])
                )
            if life["stop"]:
                self.hooks.ask_to_stop(life["stop"])

    def _talk(self) -> None:
        while not self._closed.is_set():
            self.look()
            self._closed.wait(self._silence.interval)

    def _look_on(self) -> None:
        last = time.monotonic()
        while not self._closed.wait(self._silence.interval) and not self.failure:
            now = time.monotonic()
            lost = self._silence.count(self._signs.heard, self._signs.index, now - last)
            for index, seconds in lost.items():
                what = f"no sign of life for {seconds:.0f} s"
                self._fail(LostError(lost_message(self._names[index], what)))
            last = now
        if self.failure and not self._closed.is_set():
            self._raised.wait(GRACE)
            hangs = not self._raised.is_set()
            if hangs or not self._closed.wait(CLOSING):
                self._end.now(self.failure)

    def _fail(self, failure: ChompError) -> None:
        self.failure = self.failure or failure


def lost_message(name: str, what: str) -> str:
    """Return the error that names a lost process, and what to do."""
    return (
        f"{name} is lost ({what}): it was killed, its host is down, or the network is; look at its "
        "own output, and resume the run with all its processes (--resume latest)"
    )
