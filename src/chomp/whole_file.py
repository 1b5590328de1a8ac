"""A small file that is replaced whole: a reader, or a crash, finds the old text or the new."""

import os
from pathlib import Path


def replace_text(path: Path, text: str) -> None:
    """Put `text` in the place of the file's content, on the disk when this returns.

    Raises:
        OSError: it can't be written; the file is as it was.
    """
    replacement = path.with_name(path.name + ".tmp")
    try:
        with replacement.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        replacement.replace(path)
    except OSError:
        replacement.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
