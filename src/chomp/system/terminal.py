"""Standard output and error that nothing from outside can steer, and that a run can do without.

Documents, file names and files of a run folder may hold anything: sequences that a terminal would
obey are written as escapes. Where the terminal is gone, the reader has left or the disk is full, a
run drops what can't be written, and goes on.
"""

import errno
import io
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, cast

# Control characters but newline and tab; what turns the direction of text or ends a line; halves
# of surrogate pairs, as in names of files that aren't UTF-8. Joiners stay: scripts need them.
_STEERS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
    "\ufff9-\ufffb]"
)
_STREAM = re.compile(r"/dev/(stdout|stderr|fd/\d+)|/proc/self/(fd/\d+)")
_BREAKS = {"\n": "\\n", "\t": "\\t"}
# Progress bars of libraries, which steer the terminal and would be lines of escapes here.
_BARS = ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS")
_GONE = (errno.EIO, errno.EBADF, errno.ENXIO, errno.ENODEV, errno.EPIPE, errno.ECONNRESET)
"""Errors of a terminal, pipe or socket that won't come back."""


def is_standard_stream(path: Path) -> bool:
    """Whether a path names a standard stream of this process, whatever that leads to."""
    return _STREAM.fullmatch(str(path)) is not None


def open_followed(path: str, flags: int) -> int:
    """Open a file as the `opener` of `open`, links followed; a standard stream is the one there is.

    Opened anew it would have a place of its own to write at, and overwrite what the other wrote.
    """
    if found := _STREAM.fullmatch(str(path)):
        name = found[1] or found[2]
        return os.dup({"stdout": 1, "stderr": 2}.get(name) or int(name.rpartition("/")[2]))
    return os.open(path, flags | os.O_CLOEXEC, 0o666)


def printable(text: str) -> str:
    """Return `text` with what would steer a terminal as escapes, in the form that JSON has."""
    return _STEERS.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def one_line(text: str) -> str:
    """Return `text` as `printable` does, and its newlines and tabs as escapes too."""
    return re.sub("[\n\t]", lambda match: _BREAKS[match[0]], printable(text))


class OutputError(OSError):
    """A command's output can't be written, and nobody would know."""


class SafeStream(io.TextIOBase):
    """A text stream that shows what it can, escapes the rest, and survives its end.

    Args:
        stream: takes the text.
        styled: let control sequences through: the writer makes them itself, of escaped text.
        outlives: drop what can't be written; else that is an OutputError, or a BrokenPipeError
            where the reader of a pipe has gone.
    """

    def __init__(self, stream: IO[str], *, styled: bool = False, outlives: bool = False):
        self.stream, self.styled, self.outlives = stream, styled, outlives
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # letters that its encoding lacks

    @property
    def encoding(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The encoding of what is written."""
        return getattr(self.stream, "encoding", None) or "utf-8"

    @property
    def errors(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The error handler for letters that the encoding lacks."""
        return "backslashreplace"

    def writable(self) -> bool:
        """Return that it is."""
        return True

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self.stream.isatty()

    def fileno(self) -> int:
        """Return the number of the file."""
        return self.stream.fileno()

    def write(self, text: str) -> int:
        """Write, or drop what can't be written."""
        shown = text if self.styled else printable(text)
        self._try(lambda: self.stream.write(shown))
        return len(text)

    def flush(self) -> None:
        """Write what is held back, if that is possible; a full disk may have room later."""
        self._try(self.stream.flush)

    def settle(self) -> None:
        """Write what is held back or give it up: Python's own attempt at its end is an error."""
        try:
            self.stream.flush()
        except OSError:
            self._go_silent()

    def _try(self, write: Callable[[], object]) -> None:
        try:
            write()
        except BlockingIOError:  # another program has changed the terminal that both have
            with suppress(OSError):
                os.set_blocking(self.fileno(), True)
                self.stream.flush()
        except OSError as error:
            if error.errno in _GONE:
                self._go_silent()
            if self.outlives:
                return
            if isinstance(error, BrokenPipeError):
                raise
            raise OutputError(error.errno, error.strerror) from error

    def _go_silent(self) -> None:
        with suppress(OSError), open(os.devnull, "w") as nowhere:  # it may not be a file at all
            os.dup2(nowhere.fileno(), self.fileno())


def styled(stream: IO[str]) -> IO[str]:
    """Return a stream to the same place that lets control sequences through."""
    inner = stream.stream if isinstance(stream, SafeStream) else stream
    safe = SafeStream(inner, styled=True, outlives=getattr(stream, "outlives", False))
    return cast(IO[str], safe)


def guard_streams() -> None:
    """Make standard output and error safe; replace those that are closed.

    A closed one's number would be given to the next file that is opened, and what libraries say
    on standard error would end up in that.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for name in _BARS:
        os.environ.setdefault(name, "1")
    for number, name in (1, "stdout"), (2, "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            stream = open(number, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        if not isinstance(stream, SafeStream):
            # What can't be said on standard error can't be said at all.
            setattr(sys, name, SafeStream(stream, outlives=name == "stderr"))


def outlive_readers() -> None:
    """Go on from here when standard output can't be written to, or its reader has gone."""
    if isinstance(sys.stdout, SafeStream):
        sys.stdout.outlives = True


def settle_streams() -> None:
    """Leave nothing that would fail when Python ends."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, SafeStream):
            stream.settle()


def program_name() -> str:
    """Return what the user typed to call chomp: a path, unless the bare name finds it as well."""
    typed = sys.argv[0]
    found = shutil.which("chomp")
    if Path(typed).name != "chomp" or (found is not None and Path(found).samefile(typed)):
        return "chomp"
    return shlex.quote(typed)
