"""Signs of life of a run's processes, and the end of this one when another is lost."""

import json
import threading
import time
from collections.abc import Callable
from typing import Any

from jax.errors import JaxRuntimeError

from chomp.coordinator import Hooks
from chomp.distributed.kv_store import KeyValueStore
from chomp.errors import ChompError, LostError, PeerError

LIFE = "life"
INTERVAL = 1.0
GRACE = 5.0
"""Seconds for the main thread to raise a failure; one that hangs in a device's program can't."""
CLOSING = 30.0
"""Seconds from then on until the process is gone."""


class FailureDetector:
    """Tells the other processes that this one is alive, and notices when one of them isn't.

    It has threads of its own, since the main thread may hang in a program that waits for the
    devices of a process that is gone. One thread talks with process 0, which may hang as well; the
    other one never waits for anything.

    Only time in which the detector itself could run counts, so that nobody is blamed by a process
    that was suspended.

    Args:
        store: key-value store for signs of life.
        index: this process's number.
        names: what to call the processes.
        lost_after: seconds without a sign of life.
        end: ends the process where the main thread can't; doesn't return.
        hooks: calls into this process.
    """

    def __init__(
        self,
        store: KeyValueStore,
        index: int,
        names: list[str],
        lost_after: float,
        end: Callable[[ChompError], None],
        hooks: Hooks,
    ):
        self.hooks = hooks
        self.failure: ChompError | None = None
        """Why the run can't go on."""
        self._store, self._index, self._names, self._end = store, index, names, end
        self._limit, self._interval = lost_after, min(INTERVAL, lost_after / 5)
        self._ended: dict[str, Any] | None = None
        self._beat = 0
        self._heard: dict[int, dict[str, Any]] = {}
        self._answers = 0
        self._silent: dict[int, tuple[Any, float]] = {}
        self._lost: set[int] = set()
        self._raised = threading.Event()
        self._closed = threading.Event()
        self._lock = threading.Lock()
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
                thread.join(self._interval)

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
        self._ended = how
        self._say()

    def is_last(self) -> bool:
        """Whether all others have ended or are lost."""
        gone = {index for index, life in self._heard.items() if life["ended"]} | self._lost
        return len(gone | {self._index}) == len(self._names)

    def explain(self) -> None:
        """Wait until it is known why a program that all devices run has failed here.

        Such a failure is the first that is heard of a process that was killed.

        Raises:
            PeerError, LostError: that is why.
        """
        limit = self._limit = min(self._limit, max(5 * self._interval, 3.0))
        ends = time.monotonic() + limit + 5 * self._interval
        while time.monotonic() < ends:
            self.check()
            time.sleep(self._interval / 5)

    def look(self) -> None:
        """Exchange signs of life now."""
        try:
            self._say()
            found = self._store.below(LIFE)
        except JaxRuntimeError:
            return
        heard = {int(index): json.loads(text) for index, text in found.items()}
        self._heard, self._answers = heard, self._answers + 1
        for index, life in heard.items():
            if index != self._index and (ended := life["ended"]) and ended["message"]:
                self._fail(
                    PeerError(f"{self._names[index]} ended: {ended['message']}", ended["exit_code"])
                )
            if index != self._index and life["stop"]:
                self.hooks.ask_to_stop(life["stop"])

    def _say(self) -> None:
        with self._lock:
            self._beat += 1
            life = {"beat": self._beat, "stop": self.hooks.stop_asked(), "ended": self._ended}
            self._store.put(f"{LIFE}/{self._index}", json.dumps(life), replace=True)

    def _talk(self) -> None:
        while not self._closed.is_set():
            self.look()
            self._closed.wait(self._interval)

    def _look_on(self) -> None:
        last = time.monotonic()
        while not self._closed.wait(self._interval) and not self.failure:
            now = time.monotonic()
            self._judge(min(now - last, 2 * self._interval))
            last = now
        if self.failure and not self._closed.is_set():
            self._raised.wait(GRACE)
            hangs = not self._raised.is_set()
            if hangs or not self._closed.wait(CLOSING):
                self._end(self.failure)

    def _judge(self, elapsed: float) -> None:
        """Count the silence of each process, and of the one that keeps the store."""
        heard, answers = self._heard, self._answers
        states = {i: life["beat"] for i, life in heard.items() if not life["ended"]}
        states = {i: beat for i, beat in states.items() if i != self._index}
        quiet = {}
        for index, state in {**states, -1: answers}.items():
            known, seconds = self._silent.get(index, (None, 0.0))
            quiet[index] = (state, seconds + elapsed if state == known else 0.0)
        unanswered = quiet[-1][1]
        self._silent = quiet
        if unanswered >= self._limit:
            self._lose(0 if self._index else self._index, unanswered)
        # While nobody answers nothing is heard of anybody.
        if unanswered > 2 * self._interval:
            self._silent = {-1: quiet[-1]}
            return
        for index, (_, seconds) in quiet.items():
            if index >= 0 and seconds >= self._limit:
                self._lose(index, seconds)

    def _lose(self, index: int, seconds: float) -> None:
        self._lost.add(index)
        what = f"no sign of life for {seconds:.0f} s"
        self._fail(LostError(lost_message(self._names[index], what)))

    def _fail(self, failure: ChompError) -> None:
        self.failure = self.failure or failure


def lost_message(name: str, what: str) -> str:
    """Return the error that names a lost process, and what to do."""
    return (
        f"{name} is lost ({what}): it was killed, its host is down, or the network is; look at its "
        "own output, and resume the run with all its processes (--resume latest)"
    )
