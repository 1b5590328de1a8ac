"""Lines of a run's files that had no room on their disk, brought back from a checkpoint."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from chomp.system.atomic_file import unshare
from chomp.system.json_text import parse_json

MORE = 1 << 20
"""Bytes before the end of a file in which lines are looked for, beside those that may be new."""


class RestoredLines(NamedTuple):
    """Lines that a file lacks of those it held, or should have held, at a checkpoint."""

    lines: list[str]
    """To be appended."""
    there: int
    """Number of the file's lines."""
    lost: int
    """Number of lines that nobody has."""


def restore_lines(path: Path, kept: Mapping[str, Any] | None) -> RestoredLines:
    """Find the lines that a file lacks, whose rows after the checkpoint are out already.

    A last line that was to be replaced is cut off.

    Args:
        path: the file.
        kept: what `Tail.as_values` gave for the checkpoint; None: it says nothing.

    Raises:
        OSError: the file can't be read, or not be cut.
    """
    there = _count(path)
    if kept is None:
        return RestoredLines([], there, 0)
    waiting: list[str] = kept["waiting"]
    tail = _tail(path, MORE + sum(map(len, waiting)) * 4)
    present = {_key(line) for line in tail}
    cut = kept["surplus"]
    if waiting and tail and _is_older(tail[-1], waiting[0], cut):
        unshare(path)
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size - cut)
        present.remove(_key(tail[-1]))
        there -= 1
    lines = [line for line in waiting if _key(line) not in present]
    return RestoredLines(lines, there, max(0, kept["lines"] - there - len(lines)))


def _is_older(line: bytes, newer: str, size: int) -> bool:
    """Whether a line of this size was to be replaced by a newer one, and wasn't."""
    other = newer.encode("utf-8", "backslashreplace")
    return len(line) == size and line != other and _key(line) == _key(other)


def _key(line: str | bytes) -> Any:
    """Return what no two lines of a file have alike."""
    try:
        row = parse_json(line)
    except ValueError:
        row = None
    if not isinstance(row, dict):
        return line if isinstance(line, bytes) else line.encode("utf-8", "backslashreplace")
    return row.get("step"), "data" in row, "prompt" in row and repr(row["prompt"])


def _count(path: Path) -> int:
    if not path.is_file():
        return 0
    with path.open("rb", buffering=0) as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))


def _tail(path: Path, size: int) -> list[bytes]:
    """Return the lines in the last bytes of a file; the first may be a part of one."""
    if not path.is_file():
        return []
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - size))
        return [line + b"\n" for line in file.read().split(b"\n")[:-1]]
