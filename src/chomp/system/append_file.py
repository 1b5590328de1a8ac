"""A file that lines are appended to, also while the disk is full."""

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from chomp.system.atomic_file import open_plain


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


class AppendFile:
    """Lines appended to a file, each in one write, without fsync.

    No error of the file system ends a run: what can't be written waits in memory, and is tried
    again with each further line and at `close`.

    Args:
        path: the file; its folder is made.
        warn: takes a line for the user: when a write fails for the first time, and at the end if
            lines are lost.
        there: number of the lines that the file has already.
        opener: opens it, as that of `open`; by default not through a link.
    """

    def __init__(
        self,
        path: Path,
        warn: Callable[[str], None],
        there: int = 0,
        opener: Callable[[str, int], int] | None = open_plain,
    ):
        self._path, self._warn, self._opener = path, warn, opener
        self._lines, self._kept = there, False
        self._file: io.FileIO | None = None
        self._last = b""
        # The text is what the file holds, without `_surplus` bytes at its end, then `_waiting`.
        self._surplus = 0
        self._waiting = bytearray()
        self._torn = b""  # the part of the line in hand that the file has
        self._warned = False
        self._write()

    def write(self, line: str) -> None:
        """Append `line`, which ends with a line feed."""
        # In JSON what backslashreplace makes of a lone surrogate is its escape.
        self._last = line.encode("utf-8", "backslashreplace")
        self._waiting += self._last
        self._lines += 1
        self._write()

    def tail(self) -> Tail:
        """Return what to keep elsewhere, in case this process is killed while the disk is full."""
        self._kept = True
        text = (self._torn + self._waiting).decode("utf-8", "replace")
        waiting = [line + "\n" for line in text.split("\n")[:-1]] if self._waiting else []
        return Tail(self._lines, self._surplus, waiting)

    def replace_last(self, line: str) -> None:
        """Put `line` in the place of the one appended last."""
        unwritten = min(len(self._last), len(self._waiting))
        del self._waiting[len(self._waiting) - unwritten :]
        if written := len(self._last) - unwritten:
            self._surplus += written
            self._torn = b""
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
            count = self._waiting.count(b"\n")
            what = f"{count} line(s) at its end are lost" if count else "its end may be lost"
            if self._kept:
                what += ", but for those that the newest checkpoint has: a resume brings them back"
            self._warn(f"warning: {self._path} can't be written ({_reason(error)}): {what}")
        self._waiting.clear()

    def _write(self) -> OSError | None:
        try:
            if self._file is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._file = io.FileIO(self._path, "a", opener=self._opener)
            if self._surplus:
                self._file.truncate(self._file.seek(0, os.SEEK_END) - self._surplus)
                self._surplus = 0
            while self._waiting:
                written = self._file.write(self._waiting)
                self._torn = (self._torn + self._waiting[:written]).rpartition(b"\n")[2]
                del self._waiting[:written]
        except OSError as error:
            if not self._warned:
                self._warned = True
                self._warn(
                    f"warning: {self._path} can't be written ({_reason(error)}): the run goes on, "
                    "and lines wait in memory until there is room"
                )
            return error
        return None


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__
