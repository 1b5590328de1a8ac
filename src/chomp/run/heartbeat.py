"""A small file that says what a process is doing, and outlives it."""

import ctypes
import errno
import os
import stat
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple


class Phase(StrEnum):
    """Phases that a run spends its time in. The file holds positions in this list: only append."""

    STARTING = "starting"
    COMPILING = "compiling"
    RESTORING = "restoring"
    TRAINING = "training"
    WAITING = "waiting for data"
    EVALUATING = "evaluating"
    SAMPLING = "sampling"
    SAVING = "saving"
    CLOSING = "closing"
    ENDED = "ended"


PHASES = tuple(Phase)
_NUMBERS = {phase: number for number, phase in enumerate(PHASES)}

SIZE = 4096
_SLOTS = (0, 512)
_MAGIC = b"chb1"
# magic, pid, start, phase, turn, step, finished, since, marked, alive, seconds
_RECORD = struct.Struct("<4sIIIQqqddd16d")
_CHECKSUM = struct.Struct("<I")
_UNUSED = (0.0,) * (16 - len(PHASES))


class PhaseTimes(NamedTuple):
    """Time spent in each phase."""

    seconds: dict[Phase, float]
    """Of all phases, in their order."""
    marked: float
    """Up to when they count, in seconds since 1970."""

    def counted(self, phase: Phase, seconds: float, marked: float) -> "PhaseTimes":
        """Return the times with so many more seconds of a phase, up to `marked`."""
        times = self.seconds.copy()
        times[phase] += seconds
        return PhaseTimes(times, marked)

    def until(self, now: float, phase: Phase) -> dict[Phase, float]:
        """Return the seconds of each phase, where it has been `phase` from then on up to `now`."""
        return self.counted(phase, max(0.0, now - self.marked), now).seconds


class HeartbeatReading(NamedTuple):
    """A reading of a heartbeat; times are seconds since 1970."""

    pid: int
    start: int
    """Number of the start, from 1."""
    phase: Phase
    turn: int
    """Grows with each record."""
    step: int
    """The step that the phase belongs to: in training the one being taken."""
    finished: int
    """The last finished step."""
    since: float
    """When this phase of this step began."""
    alive: float
    """The last sign of life, be it only of the watchdog."""
    times: PhaseTimes

    def seconds_until(self, now: float) -> dict[Phase, float]:
        """Return the seconds of each phase, the present one counted up to `now`."""
        return self.times.until(now, self.phase)


class Background(NamedTuple):
    """Work beside the training thread."""

    name: str
    step: int


class Heartbeat:
    """Tells what this process is doing, in memory and in a file that outlives SIGKILL.

    A record goes to the two slots of the file in turn, with a checksum: whenever the process is
    killed or the file read, one of them is whole. Written with the GIL held: giving it away costs
    milliseconds when another thread computes. Not mapped: a mapping of a file that somebody cuts
    short ends the process.

    `enter`, `during` and `finished` are for the training thread.

    Without a path, or where the file can't be made, it works in memory only; `problem` says why.
    """

    def __init__(self, path: Path | None, *, start: int = 1, started: float | None = None):
        """Begin with the phase `starting` at step 0.

        Args:
            path: the file, which is replaced; None: none, or later with `keep_in`.
            start: number of the start.
            started: `time.perf_counter()` when the command began.
        """
        self.problem: str | None = None
        self._file: int | None = None
        self._lock = threading.Lock()
        self._counter = time.perf_counter()
        spent, now = 0.0 if started is None else self._counter - started, time.time()
        self._reading = HeartbeatReading(
            pid=os.getpid(),
            start=start,
            phase=Phase.STARTING,
            turn=0,
            step=0,
            finished=0,
            since=now - spent,
            alive=now,
            times=PhaseTimes(dict.fromkeys(PHASES, 0.0) | {Phase.STARTING: spent}, now),
        )
        self.beats = 0
        """Signs of life from the training thread so far."""
        self._background: dict[int, Background] = {}
        if path is not None:
            self.keep_in(path, start)

    def keep_in(self, path: Path, start: int) -> None:
        """Be kept in the file `path` from now on, as the start of this number."""
        with self._lock:
            try:
                self._file = _opened(path)
            except OSError as error:
                self.problem = f"{path} can't be made ({error.strerror})"
            self._change(start=start)

    def enter(self, phase: Phase, step: int | None = None) -> None:
        """Be in `phase` from now on; entering the same again is a sign of life.

        Args:
            phase: the new one.
            step: the one that it belongs to; None: that of the phase before.
        """
        with self._lock:
            pid, start, before, turn, old_step, finished, since, _, times = self._reading
            step = old_step if step is None else step
            counter, now = time.perf_counter(), time.time()
            times = times.counted(before, counter - self._counter, now)
            if phase is not before or step != old_step:
                since = now
            self._counter = counter
            self.beats += 1
            # Made anew: `_replace` takes three times as long.
            self._keep(
                HeartbeatReading(pid, start, phase, turn + 1, step, finished, since, now, times)
            )

    @contextmanager
    def during(self, phase: Phase) -> Iterator[None]:
        """Be in `phase` inside, at the present step, and in the phase before afterwards."""
        before = self._reading.phase
        self.enter(phase)
        try:
            yield
        finally:
            self.enter(before)

    def finished(self, step: int) -> None:
        """Note that `step` is finished; an earlier one than before after a rewind."""
        with self._lock:
            self.beats += 1
            self._change(finished=step)

    @property
    def last_finished(self) -> int:
        """The last finished step."""
        return self._reading.finished

    @contextmanager
    def background(self, name: str, step: int) -> Iterator[None]:
        """Let the watchdog look at work beside the training thread while inside."""
        work = Background(name, step)
        with self._lock:
            self._background[id(work)] = work
        try:
            yield
        finally:
            with self._lock:
                del self._background[id(work)]

    def work(self) -> dict[int, Background]:
        """Return the work beside the training thread that goes on now."""
        with self._lock:
            return dict(self._background)

    def now(self) -> HeartbeatReading:
        """Note that the process is there, whatever its training thread does; return a reading."""
        with self._lock:
            self._change(alive=time.time())
            return self._reading

    def close(self) -> None:
        """Be in the phase `ended`, and forget the file."""
        self.enter(Phase.ENDED)
        with self._lock:
            file, self._file = self._file, None
            if file is not None:
                os.close(file)

    def _change(self, **values: Any) -> None:
        self._keep(self._reading._replace(turn=self._reading.turn + 1, **values))

    def _keep(self, reading: HeartbeatReading) -> None:
        self._reading = reading
        if self._file is not None:
            record = _packed(reading)
            # What can't be written now is told by the next record.
            _pwrite(self._file, record, len(record), _SLOTS[reading.turn % 2])


def read_heartbeat(path: Path) -> HeartbeatReading | None:
    """Return the newest whole record of a heartbeat file; None without one."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    return _parsed(content)


# Python's own `os.pwrite` gives the GIL away.
_pwrite = ctypes.PyDLL(None).pwrite
_pwrite.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int64)
_pwrite.restype = ctypes.c_ssize_t


def _opened(path: Path) -> int:
    """Open the file, which is made anew if it isn't a plain one; a link isn't followed."""
    if path.is_file() and path.stat().st_nlink > 1:  # of a copy by links, which has its own
        path.unlink()
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(path, flags, 0o644)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        # Its room is taken now: a disk that fills later can't take it away.
        if os.pwrite(descriptor, bytes(SIZE), 0) != SIZE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _packed(reading: HeartbeatReading) -> bytes:
    record = _RECORD.pack(
        _MAGIC,
        reading.pid,
        reading.start,
        _NUMBERS[reading.phase],
        reading.turn,
        reading.step,
        reading.finished,
        reading.since,
        reading.times.marked,
        reading.alive,
        *reading.times.seconds.values(),
        *_UNUSED,
    )
    return record + _CHECKSUM.pack(zlib.crc32(record))


def _parsed(content: bytes) -> HeartbeatReading | None:
    found = [reading for at in _SLOTS if (reading := _slot(content, at))]
    return max(found, key=lambda reading: reading.turn, default=None)


def _slot(content: bytes, at: int) -> HeartbeatReading | None:
    record = bytes(content[at : at + _RECORD.size])
    checksum = bytes(content[at + _RECORD.size : at + _RECORD.size + _CHECKSUM.size])
    if len(record) != _RECORD.size or checksum != _CHECKSUM.pack(zlib.crc32(record)):
        return None
    magic, pid, start, phase, *counts = _RECORD.unpack(record)
    if magic != _MAGIC or phase >= len(PHASES):
        return None
    turn, step, finished, since, marked, alive, *seconds = counts
    times = PhaseTimes(dict(zip(PHASES, seconds, strict=False)), marked)
    return HeartbeatReading(pid, start, PHASES[phase], turn, step, finished, since, alive, times)
