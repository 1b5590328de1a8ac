"""Folders under names that Orbax and TensorStore can work with, whatever their own are.

Orbax looks for the parts that it has to merge with a glob of the whole path, so that brackets in
any folder's name hide them; TensorStore takes no names that aren't UTF-8, and some others amiss,
`..` among them.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PLAIN = re.compile(r"[/\w .,;+=@%^&()~#'-]*", re.ASCII)


@contextmanager
def plainly_named(folder: Path) -> Iterator[Path]:
    """Yield an absolute path of `folder` without unusual names: its own, or a temporary link's.

    Raises:
        OSError: no link can be made.
    """
    place = folder.resolve() if ".." in folder.parts else folder.absolute()
    if is_plain(place):
        yield place
        return
    with temporary_folder() as temporary:
        link = temporary / "link"
        link.symlink_to(place, target_is_directory=True)
        yield link


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield a new folder with a plain path that is removed afterwards.

    Raises:
        OSError: none can be made.
    """
    roots = [root for root in (tempfile.gettempdir(), "/tmp", "/var/tmp") if is_plain(Path(root))]
    temporary = Path(tempfile.mkdtemp(prefix="chomp-", dir=next(iter(roots), None)))
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # removes links, not what they lead to


def is_plain(path: Path) -> bool:
    """Whether all of the path's characters mean themselves everywhere."""
    return _PLAIN.fullmatch(os.fspath(path)) is not None
