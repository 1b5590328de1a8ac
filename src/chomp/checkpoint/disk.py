"""Room for checkpoints on their disk."""

import os
import re
import shutil
from pathlib import Path

from chomp.errors import DiskError

# Metadata beside the arrays: a few hundred bytes for each.
EXTRA = 1 << 18
# What a disk that is full, read-only or gone raises: Python, TensorStore, and the latter's
# threads when others of them have already failed.
DISK_ERRORS = (OSError, ValueError, RuntimeError)


def megabytes(size: int) -> str:
    """Return a size as text: `1,234.5 MB`."""
    return f"{size / 1e6:,.1f} MB"


def free_bytes(folder: Path) -> int:
    """Return what can still be written to the disk of `folder`.

    Raises:
        OSError: there is no such folder.
    """
    return shutil.disk_usage(folder).free


def check_room(folder: Path, *, held: int, size: int, max_to_keep: int) -> str | None:
    """Check that a checkpoint can be written beside the one before it.

    Args:
        folder: the checkpoints' folder; exists.
        held: bytes of the checkpoints there.
        size: bytes of one checkpoint.
        max_to_keep: how many shall stay.

    Returns:
        A warning if there is room for fewer than shall stay.

    Raises:
        DiskError: there isn't room for two.
    """
    free = free_bytes(folder)
    facts = f"one takes about {megabytes(size)}, {megabytes(free)} are free"
    if free < size or free + held < 2 * size:
        raise DiskError(
            f"{folder}: no room for two checkpoints ({facts}), and a new one is written before "
            "an old one is deleted; free some space, or set checkpoint.root_dir to another disk"
        )
    fitting = (free + held) // size
    if fitting < max_to_keep + 1:
        return (
            f"{folder}: room for {fitting} checkpoints ({facts}); checkpoint.max_to_keep: "
            f"{max_to_keep} needs room for {max_to_keep + 1}, one of them being written: free some "
            f"space, or set it to {fitting - 1}, or the last ones of the run won't be saved"
        )
    return None


def reason(error: Exception) -> str:
    """Return why something couldn't be written, from an exception of Python or TensorStore."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error)
    if code := re.search(r"os_error_code='(\d+)'", text):
        return os.strerror(int(code[1]))
    return re.sub(r"\s+", " ", text)[:300] or type(error).__name__
