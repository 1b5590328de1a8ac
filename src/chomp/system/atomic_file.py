"""A small file that is replaced whole: a reader, or a crash, finds the old text or the new."""

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def replace_text(path: Path, text: str) -> None:
    """Put `text` in the place of the file's content, on the disk when this returns.

    Raises:
        OSError: it can't be written; the file is as it was.
    """
    with replacing(path) as file:
        file.write(text.encode("utf-8", "surrogateescape"))


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Yield a file whose content takes the place of that of `path`, on the disk afterwards.

    Raises:
        OSError: it can't be written; the file is as it was, as after any error inside.
    """
    draft = path.with_name(path.name + ".tmp")
    try:
        with new_file(draft) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def new_file(path: Path) -> BinaryIO:
    """Open a new file in the place of what is there: a link isn't followed, a pipe not opened.

    Raises:
        OSError: it can't be made.
    """
    path.unlink(missing_ok=True)
    return os.fdopen(
        os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666), "wb"
    )


def open_plain(path: str, flags: int) -> int:
    """Open a file, as the `opener` of `open`: not through a link, and no pipe without a reader.

    Raises:
        OSError: it is such a one, or can't be opened.
    """
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)


def unshare(path: Path) -> None:
    """Make a file with several names, as `cp -l` and backups give it, one of this name alone.

    Raises:
        OSError: there is no room for a copy, or it can't be read.
    """
    if path.is_file() and path.stat().st_nlink > 1:
        with path.open("rb") as file, replacing(path) as copy:
            os.fchmod(copy.fileno(), stat.S_IMODE(os.fstat(file.fileno()).st_mode))
            shutil.copyfileobj(file, copy)


def remedy(error: OSError) -> str:
    """Return what the user can do about a file that couldn't be written."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return "make room on the disk" if full else "make it writable"


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
