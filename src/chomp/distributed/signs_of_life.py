"""Signs of life that the processes of a run exchange, and how long one of them is silent."""

import json
import threading
from typing import Any, NamedTuple

from chomp.coordinator import Hooks
from chomp.distributed.kv_store import KeyValueStore

LIFE = "life"
INTERVAL = 1.0
"""Seconds between two signs, where a silence may last for long."""


class Heard(NamedTuple):
    """What was heard last."""

    answers: int
    """How often the store has answered so far."""
    lives: dict[int, dict[str, Any]]
    """The newest sign of each process, by its number: `beat`, `stop` and `ended`."""

    def alive(self, but: int) -> dict[int, int]:
        """Return the beats of the processes that haven't ended, one of them left out."""
        lives = self.lives.items()
        return {i: life["beat"] for i, life in lives if not life["ended"] and i != but}

    def ended(self) -> set[int]:
        """Return the processes that have said that they end."""
        return {index for index, life in self.lives.items() if life["ended"]}


class SignsOfLife:
    """Says that this process is alive, and hears the others; from any thread.

    Args:
        store: key-value store for the signs.
        index: this process's number.
        hooks: say which signal asks this process to stop.
    """

    def __init__(self, store: KeyValueStore, index: int, hooks: Hooks):
        self.index = index
        self.heard = Heard(0, {})
        self._store, self._hooks = store, hooks
        self._beat = 0
        self._ended: dict[str, Any] | None = None
        self._lock = threading.Lock()

    def exchange(self) -> Heard:
        """Say that this process is there, and return what is heard.

        Raises:
            JaxRuntimeError: process 0 can't be reached.
        """
        self._say()
        found = self._store.below(LIFE)
        lives = {int(index): json.loads(text) for index, text in found.items()}
        self.heard = Heard(self.heard.answers + 1, lives)
        return self.heard

    def say_ended(self, how: dict[str, Any]) -> None:
        """Say at once that, and how, this process ends.

        Raises:
            JaxRuntimeError: process 0 can't be reached.
        """
        self._ended = how
        self._say()

    def _say(self) -> None:
        with self._lock:
            self._beat += 1
            life = {"beat": self._beat, "stop": self._hooks.stop_asked(), "ended": self._ended}
            self._store.put(f"{LIFE}/{self.index}", json.dumps(life), replace=True)


class _LastBeat(NamedTuple):
    """The newest beat of something, and the seconds since it came."""

    beat: int
    seconds: float

    def after(self, beat: int, elapsed: float) -> "_LastBeat":
        same = beat == self.beat
        return _LastBeat(beat, self.seconds + elapsed if same else 0.0)


_NOTHING = _LastBeat(-1, 0.0)
"""Nothing was heard yet."""


class Silence:
    """Counts how long each process has been silent.

    Attributes:
        interval: seconds between two looks, and two signs.
        lost: the processes that were silent for too long.

    Args:
        limit: seconds of silence that are too long.
    """

    def __init__(self, limit: float):
        self._limit, self.interval = limit, min(INTERVAL, limit / 5)
        self.lost: set[int] = set()
        self._unanswered = _NOTHING
        self._silent: dict[int, _LastBeat] = {}

    def shorten(self) -> float:
        """Have a few signs that don't come be too long from now on; return these seconds."""
        self._limit = min(self._limit, max(5 * self.interval, 3.0))
        return self._limit

    def count(self, heard: Heard, index: int, elapsed: float) -> dict[int, float]:
        """Return the processes that are silent for too long now, and for how many seconds.

        Args:
            heard: what was heard last.
            index: this process's number.
            elapsed: seconds since the call before; more than two intervals count as two, so that
                nobody is blamed by a process that was suspended itself.
        """
        elapsed = min(elapsed, 2 * self.interval)
        self._unanswered = self._unanswered.after(heard.answers, elapsed)
        # While process 0, which keeps the store, doesn't answer nothing is heard of anybody.
        if self._unanswered.seconds > 2 * self.interval:
            self._silent = {}
            silent = {0: self._unanswered}
        else:
            silent = self._silent = {
                other: self._silent.get(other, _NOTHING).after(beat, elapsed)
                for other, beat in heard.alive(but=index).items()
            }
        lost = {other: one.seconds for other, one in silent.items() if one.seconds >= self._limit}
        self.lost |= lost.keys()
        return lost
