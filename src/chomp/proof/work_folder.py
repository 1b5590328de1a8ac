"""The folder that a proof's runs live in."""

import tempfile
from pathlib import Path

from chomp.errors import ConfigError


def work_folder(wanted: Path | None) -> Path:
    """Return an empty folder: the one wanted, or a temporary one.

    Raises:
        ConfigError: the one wanted holds something, or can't be made.
    """
    if wanted is None:
        return Path(tempfile.mkdtemp(prefix="chomp-prove-"))
    try:
        wanted.mkdir(parents=True, exist_ok=True)
        holds = any(wanted.iterdir())
    except OSError as error:
        raise ConfigError(
            [f"--work-dir {wanted} can't be used ({error.strerror}); give another folder"]
        ) from error
    if holds:
        raise ConfigError([f"--work-dir {wanted} isn't empty; give a new folder"])
    return wanted
