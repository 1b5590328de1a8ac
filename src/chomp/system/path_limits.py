"""Limits of paths on this system, found before there is anything to write there."""

import os
from contextlib import suppress
from pathlib import Path

LONGEST = "checkpoints/unfinished-run-step/step/params.orbax-checkpoint-tmp/d/".ljust(250, "x")
"""About the longest path inside a run folder or a folder of checkpoints."""
SHOWN = 200


def check_path(path: Path) -> None:
    """Check that there can be such a path, be there anything or not.

    Raises:
        OSError, ValueError: it is too long, or has characters that none can have.
    """
    with suppress(FileNotFoundError, NotADirectoryError):
        os.lstat(path.absolute())


def shortened(path: object) -> str:
    """Return a path for a message."""
    text = str(path)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}... ({len(text):,} characters)"


def why(error: Exception) -> str:
    """Return what is wrong, from an exception of a function that takes a path."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
