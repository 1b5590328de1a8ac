"""The folder of compiled programs: where it is, what it holds, how large it gets, whose it is.

Programs in it are loaded and run without a question, so it matters who could have put them there.
"""

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

AUTO = "auto"
_PROGRAM = re.compile(r".+-[0-9a-f]{64}-cache")
"""As JAX names a program; beside it there may be a file that ends in `-atime`."""


class Held(NamedTuple):
    """The contents of a folder of compiled programs."""

    programs: int
    bytes: int


def cache_folder(name: str) -> Path:
    """Return the folder that `runtime.compile_cache` names; it may not exist.

    Raises:
        RuntimeError: there is no home folder.
    """
    if name != AUTO:
        return Path(name).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("chomp", appauthor=False) / "jax"


def held(folder: Path) -> Held:
    """Count the programs of a folder; none where it can't be read."""
    sizes = [info.st_size for _, info in _programs(folder)]
    return Held(len(sizes), sum(sizes))


def trim(folder: Path, limit: float) -> Held:
    """Delete the programs that were not used for longest until `limit` bytes are left.

    Nothing but programs that JAX put there is touched. Returns what was deleted.
    """
    newest = sorted(_programs(folder), key=lambda item: -max(item[1].st_mtime, item[1].st_atime))
    kept, programs, size = 0, 0, 0
    for path, info in newest:
        kept += info.st_size
        if kept > limit and _delete(path):
            programs, size = programs + 1, size + info.st_size
            _delete(path.with_name(path.name.removesuffix("cache") + "atime"))
    return Held(programs, size)


def _delete(path: Path) -> bool:
    try:
        path.unlink()
    except OSError:  # another process has done it, or it isn't ours to delete
        return False
    return True


def _programs(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        try:
            info = entry.stat(follow_symlinks=False)
        except OSError:  # deleted meanwhile
            continue
        if _PROGRAM.fullmatch(entry.name) and stat.S_ISREG(info.st_mode):
            yield Path(entry.path), info


def is_own(folder: Path, outside: Path) -> bool:
    """Whether nobody but this user can have put programs there.

    Args:
        folder: that of the programs.
        outside: a folder of unknown origin that it must not be part of.
    """
    try:
        place, info = folder.resolve(strict=True), folder.stat()
    except OSError:  # whoever owns the folder above could make it
        return False
    is_alone = not info.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return (
        folder.is_absolute()
        and not place.is_relative_to(outside.resolve())
        and info.st_uid == os.getuid()
        and is_alone
    )
