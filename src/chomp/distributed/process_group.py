"""Several processes, which agree through the hosts.

They agree through the key-value store of `jax.distributed`, on the hosts: no device takes part.
"""

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from jax.errors import JaxRuntimeError

from chomp import errors
from chomp.coordinator import Coordinator
from chomp.distributed.failure_detector import FailureDetector
from chomp.distributed.kv_store import KeyValueStore
from chomp.distributed.process_end import ProcessEnd
from chomp.errors import ChompError, ConfigError, Interrupted

T = TypeVar("T")

SLICE = 0.2
"""Seconds of waiting after which is looked whether it makes sense to go on waiting."""


class ProcessGroup(Coordinator):
    """Several processes.

    Args:
        store: key-value store for their messages.
        detector: failure detector, started.
        index: this process's number.
        size: number of processes.
        end: the end of this process.
    """

    def __init__(
        self,
        store: KeyValueStore,
        detector: FailureDetector,
        index: int,
        size: int,
        end: ProcessEnd,
    ):
        self.hooks = detector.hooks
        self.index, self.size = index, size
        self._store, self._detector, self._end = store, detector, end
        self._turns: dict[str, int] = defaultdict(int)

    def gather_and_decide(
        self, name: str, part: Any, decide: Callable[[list[Any]], Any] = list, channel: str = "main"
    ) -> Any:
        """Return what the leader decides on the parts of all processes."""
        turn = self._turns[channel]
        self._turns[channel] += 1
        here = f"{channel}/{turn}"
        if not self.is_leader:
            self._put(f"{here}/{self.index}", [name, part])
            return self._take(f"{here}/decision")
        decision = decide([part, *self._parts(here, name)])
        self._put(f"{here}/decision", decision)
        if turn:  # all have read the one before, or they weren't here
            self._patiently(lambda: self._store.drop(f"{channel}/{turn - 1}"))
        # As the others see it: JSON has no tuples.
        return json.loads(json.dumps(decision))

    def on_leader(self, name: str, work: Callable[..., T], *args: Any) -> T:
        """Return what `work(*args)`, done by the leader alone, returns."""
        result, raised = None, None
        if self.is_leader:
            try:
                result = work(*args)
            except (ChompError, Interrupted) as error:
                raised = error
        told = {"result": result, "error": _described(raised), "stop": self.hooks.stop_asked()}
        told = self.gather_and_decide(name, told, decide=lambda parts: parts[0])
        if raised:
            raise raised
        if told["error"]:
            if told["stop"]:
                self.hooks.ask_to_stop(told["stop"])
            raise _restored(told["error"])
        return told["result"]

    @contextmanager
    def interruptible(self, name: str) -> Iterator[None]:
        """Have all processes interrupted where a stop of one interrupts what it does inside."""
        interrupted = False
        try:
            yield
        except Interrupted:
            interrupted = True
        stops = self.gather_and_decide(name, self.hooks.stop_asked() if interrupted else None)
        if stop := next(filter(None, stops), None):
            self.hooks.ask_to_stop(stop)
        if stop or interrupted:
            raise Interrupted

    def agree(self, values: Mapping[str, Any]) -> None:
        """Check that all processes have the same values."""
        if problems := self.gather_and_decide("agree", dict(values), decide=disagreements):
            raise ConfigError(["the processes of a run must have the same settings:", *problems])

    def check(self) -> None:
        """Raise the failure of another process that is known."""
        self._detector.check()

    @contextmanager
    def translate_peer_failures(self) -> Iterator[None]:
        """Have what the loss of a process leads to inside raised as that loss."""
        try:
            yield
        except (JaxRuntimeError, ValueError):  # the latter where Python asked for a value
            self._detector.explain()
            raise

    def end(self, error: BaseException | None) -> None:
        """Leave the other processes."""
        if error is None:
            self.gather_and_decide("end", None)
            self._detector.close()
            self._end.with_the_others()
            return
        if isinstance(error, ChompError):
            message, code = str(error), error.exit_code
            error.process = self.index or None
        else:
            message, code = f"{type(error).__name__}: {error}", 1
        try:
            self._detector.say_ended({"message": message, "exit_code": code})
            self._linger()
        except JaxRuntimeError:
            pass  # process 0 is gone, and nobody is left to be told
        self._end.alone(code)

    def _linger(self) -> None:
        """Let the others read what process 0 keeps before it goes."""
        ends = time.monotonic() + 5.0
        while self.is_leader and not self._detector.is_last() and time.monotonic() < ends:
            self._detector.look()
            time.sleep(SLICE)

    def _parts(self, here: str, name: str) -> Iterator[Any]:
        found: dict[str, str] = {}
        for index in range(1, self.size):
            if str(index) not in found:
                found[str(index)] = self._take_text(f"{here}/{index}")
                if index < self.size - 1:  # one question for all who were as quick
                    found |= self._patiently(lambda: self._store.below(here))
            what, part = json.loads(found[str(index)])
            if what != name:
                raise RuntimeError(f"out of step: process {index} is at {what!r}, 0 at {name!r}")
            yield part

    def _put(self, key: str, value: Any) -> None:
        text = json.dumps(value)
        # Twice where the first answer got lost.
        self._patiently(lambda: self._store.put(key, text, replace=True))

    def _take(self, key: str) -> Any:
        return json.loads(self._take_text(key))

    def _take_text(self, key: str) -> str:
        while True:
            text = self._patiently(lambda: self._store.take(key, SLICE))
            if text is not None:
                return text
            self._detector.look()
            self._detector.check()

    def _patiently(self, talk: Callable[[], T]) -> T:
        """Talk with process 0, again and again while it can't be reached but isn't lost."""
        while True:
            try:
                return talk()
            except JaxRuntimeError:
                self._detector.check()
                time.sleep(SLICE)


def disagreements(parts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line for each key whose values aren't the same in all parts."""
    lines = []
    for key in dict.fromkeys(key for part in parts for key in part):
        who: dict[str, list[int]] = {}
        for index, part in enumerate(parts):
            who.setdefault(json.dumps(part.get(key)), []).append(index)
        if len(who) > 1:
            values = (f"{value} in {_processes(indices)}" for value, indices in who.items())
            lines.append(f"  {key}: {', '.join(values)}")
    return lines


def _processes(indices: list[int]) -> str:
    several = len(indices) > 4
    shown = ", ".join(map(str, indices[:3] if several else indices))
    noun = "process" if len(indices) == 1 else "processes"
    return f"{noun} {shown}{f' and {len(indices) - 3} more' if several else ''}"


def _described(error: BaseException | None) -> dict[str, Any] | None:
    if error is None:
        return None
    code = error.exit_code if isinstance(error, ChompError) else 0
    return {"kind": type(error).__name__, "message": str(error), "exit_code": code}


def _restored(told: dict[str, Any]) -> BaseException:
    kind = getattr(errors, told["kind"], None)
    if kind is Interrupted:
        return Interrupted()
    if kind is ConfigError:
        return ConfigError(told["message"].splitlines())
    if kind in (None, errors.PeerError):
        return errors.PeerError(told["message"], told["exit_code"])
    return kind(told["message"])
