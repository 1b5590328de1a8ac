"""Folders that one process at a time writes to."""

import errno
import fcntl
import os
import secrets
import stat
from pathlib import Path

LOCK = ".lock"
MARK = "chomp\n"
"""Beginning of a lock file's text; earlier versions left it empty."""
# Lustre without -o flock, NFS without its lock daemon, FUSE; on NFS a folder, opened to read only.
UNSUPPORTED = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EBADF)


class FolderLock:
    """Keeps other processes out of a folder until it is closed, or this process is gone.

    Both the folder and a file in it are locked: the file can be removed and made anew, which nobody
    would notice, and not all file systems lock folders.

    Attributes:
        was_there: whether a lock file of chomp's was there before.
        held: whether the file is locked; if not, the file system can't do it.
    """

    def __init__(self, folder: Path, name: str = LOCK):
        """Lock a folder, by a file of this name in it.

        Raises:
            BlockingIOError: another process has it.
            OSError: the lock file can't be written, or isn't a file.
        """
        self._path = folder / name
        self._descriptors: list[int] = []
        try:
            self._descriptors.append(os.open(folder, os.O_RDONLY | os.O_CLOEXEC))
            lock(self._descriptors[0])
            there = os.path.lexists(folder / name)
            # Not through a planted link, and without waiting for the other end of a pipe.
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            file = os.open(folder / name, flags, 0o644)
            self._descriptors.append(file)
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise OSError(errno.EINVAL, f"{name} is not a regular file")
            self.held = lock(file)
            before = os.read(file, len(MARK))
            self.was_there = there and before in (b"", MARK.encode())
            if there and not self.was_there:
                raise OSError(errno.EEXIST, f"{name} is there already, and isn't chomp's")
            if not before:
                try:
                    os.pwrite(file, MARK.encode(), 0)
                except OSError as error:
                    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                        raise
        except OSError:
            self.close()
            raise

    def mark(self) -> str:
        """Write into the file what tells other processes that they see the same one."""
        text = f"{MARK}{secrets.token_hex(8)}\n"
        os.pwrite(self._descriptors[-1], text.encode(), 0)
        return text

    def leave_no_trace(self) -> None:
        """Remove a lock file that wasn't there before: the folder stays unknown to chomp."""
        if not self.was_there:
            self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let others in."""
        while self._descriptors:
            os.close(self._descriptors.pop())

    def __enter__(self) -> "FolderLock":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def lock(descriptor: int) -> bool:
    """Lock an open file or folder; return False where the file system can't do that.

    Raises:
        BlockingIOError: another process has it.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in UNSUPPORTED:
            return False
        raise
    return True
