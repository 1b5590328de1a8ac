"""A file that lines are appended to, also while the disk is full."""

import io
import os
from pathlib import Path
from typing import Any, NamedTuple

from chomp.system.atomic_file import open_plain, unshare
from chomp.system.console import Console
from chomp.system.terminal import open_followed


class Tail(NamedTuple):
    """Lines of a file that aren't known to be on the disk yet."""

    lines: int
    """Number of all its lines, those that wait included."""
    surplus: int
    """Bytes at its end that are to be cut off."""
    waiting: list[str]
    """Lines that come after that."""

    def as_values(self) -> dict[str, Any]:
        """Return it as JSON values, for a checkpoint to keep."""
        return self._asdict()


class _Unwritten:
    """What a file lacks of its text: that is what it holds, without `surplus`, then `waiting`."""

    def __init__(self):
        self.surplus = 0
        """Bytes at the file's end that are to be cut off."""
        self.waiting = bytearray()
        self._last = b""
        self._torn = b""  # the part of the line in hand that the file has

    def append(self, line: str) -> None:
        """Add a line."""
        # In JSON what backslashreplace makes of a lone surrogate is its escape.
        self._last = line.encode("utf-8", "backslashreplace")
        self.waiting += self._last

    def take_back(self) -> None:
        """Remove the line added last, from what waits or from the file."""
        unwritten = min(len(self._last), len(self.waiting))
        del self.waiting[len(self.waiting) - unwritten :]
        if written := len(self._last) - unwritten:
            self.surplus += written
            self._torn = b""

    def write_to(self, file: io.FileIO) -> None:
        """Bring the file up to date. Raises OSError; what has been written by then counts."""
        if self.surplus:
            file.truncate(file.seek(0, os.SEEK_END) - self.surplus)
            self.surplus = 0
        while self.waiting:
            written = file.write(self.waiting)
            self._torn = (self._torn + self.waiting[:written]).rpartition(b"\n")[2]
            del self.waiting[:written]

    def lines(self) -> list[str]:
        """Return the lines that aren't whole in the file."""
        text = (self._torn + self.waiting).decode("utf-8", "replace")
        return [line + "\n" for line in text.split("\n")[:-1]] if self.waiting else []


class AppendFile:
    """Lines appended to a file, each in one write, without fsync.

    No error of the file system ends a run: what can't be written waits in memory, and is tried
    again with each further line and at `close`.

    Args:
        path: the file; its folder is made.
        console: shows a warning when a write fails for the first time, and at the end if lines are
            lost.
        there: number of the lines that the file has already.
        follow_link: open it even if it is a link.
    """

    def __init__(self, path: Path, console: Console, there: int = 0, *, follow_link: bool = False):
        self._path, self._console = path, console
        self._opener = open_followed if follow_link else open_plain
        self._lines, self._kept = there, False
        self._file: io.FileIO | None = None
        self._unwritten = _Unwritten()
        self._warned = False
        self._write()

    def write(self, line: str) -> None:
        """Append `line`, which ends with a line feed."""
        self._unwritten.append(line)
        self._lines += 1
        self._write()

    def tail(self) -> Tail:
        """Return what to keep elsewhere, in case this process is killed while the disk is full."""
        self._kept = True
        return Tail(self._lines, self._unwritten.surplus, self._unwritten.lines())

    def replace_last(self, line: str) -> None:
        """Put `line` in the place of the one appended last."""
        self._unwritten.take_back()
        self._lines -= 1
        self.write(line)

    def close(self) -> None:
        """Try once more to write what waits, close the file, and tell what is lost."""
        error = self._write()
        file, self._file = self._file, None
        try:
            if file is not None:
                file.close()
        except OSError as late:  # a network's file system tells only now
            error = error or late
        if error is not None:
            count = self._unwritten.waiting.count(b"\n")
            what = f"{count} line(s) at its end are lost" if count else "its end may be lost"
            if self._kept:
                what += ", but for those that the newest checkpoint has: a resume brings them back"
            self._console.warn(f"{self._path} can't be written ({_reason(error)}): {what}")
        self._unwritten.waiting.clear()

    def _write(self) -> OSError | None:
        try:
            if self._file is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                if self._opener is open_plain:
                    unshare(self._path)
                self._file = io.FileIO(self._path, "a", opener=self._opener)
            self._unwritten.write_to(self._file)
        except OSError as error:
            if not self._warned:
                self._warned = True
                self._console.warn(
                    f"{self._path} can't be written ({_reason(error)}): the run goes on, "
                    "and lines wait in memory until there is room"
                )
            return error
        return None


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__
