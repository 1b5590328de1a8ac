"""Local files as they were found when the run began; one that changes is an error, not garbage."""

import os
import stat
from typing import BinaryIO, NamedTuple

from chomp.errors import DataError


class LocalFile(NamedTuple):
    """A file, and what its size and modification time were when it was found."""

    path: str
    size: int
    modified: int
    """In nanoseconds, as in `os.stat_result.st_mtime_ns`."""

    def open(self) -> BinaryIO:
        """Open it for reading. Raises DataError if it has changed, OSError if it can't be read."""
        file = open_regular(self.path)
        try:
            self.check(file)
        except DataError:
            file.close()
            raise
        return file

    def check(self, file: BinaryIO) -> None:
        """Raise DataError if the open file is no longer as it was found."""
        now = os.fstat(file.fileno())
        if (now.st_size, now.st_mtime_ns) == (self.size, self.modified):
            return
        what = (
            f"from {self.size} to {now.st_size} bytes"
            if now.st_size != self.size
            else "by its modification time"
        )
        raise DataError(
            f"{self.path}: changed since the run began ({what}); a run needs its files unchanged: "
            "a resume compares their contents, and says what to do"
        )


def find_local_file(path: str) -> LocalFile:
    """Return a file as it is now. Raises DataError if it isn't there."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise unreadable(error) from error
    return LocalFile(path, status.st_size, status.st_mtime_ns)


def unreadable(error: OSError) -> DataError:
    """Return the error to raise for one of the operating system, which names the file."""
    return DataError(f"{error.filename}: can't be read: {error.strerror}")


def open_regular(path: str) -> BinaryIO:
    """Open a regular file for reading. Raises OSError, DataError for a folder, pipe or device."""
    # Without O_NONBLOCK, opening a pipe that nobody writes to waits for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise DataError(f"{path}: not a regular file but {kind_of(path)}")
    return os.fdopen(descriptor, "rb")


def plain_path(path: str) -> str:
    """Return the path without detours, where these lead nowhere else.

    After a link `..` is the folder above its target, which the path's text doesn't show.
    """
    plain = os.path.normpath(path)
    if ".." in path and os.path.realpath(plain) != os.path.realpath(path):
        return path
    return plain


def kind_of(path: str) -> str:
    """Say what a path that isn't a regular file is."""
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        return "a folder"
    return "a pipe" if stat.S_ISFIFO(mode) else "a device or socket"
