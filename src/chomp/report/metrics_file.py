"""Rows of metrics as columns of numbers, read as far as they are there, and then what is new."""

import os
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped
from pydantic_core import from_json

from chomp.system.json_text import parse_json

Columns = dict[str, np.ndarray]
"""Values by key, one for each row; NaN where a row has none."""
BLOCK = 1 << 22
LARGEST = 1e100
"""Larger than any number of a row."""
FIELDS = ("step", "error", "reason")


class ErrorRow(NamedTuple):
    """The row that a start leaves which an error has ended."""

    step: int
    error: str
    reason: str


class _Read(NamedTuple):
    """How far a file has been read."""

    file: tuple[int, int] = (0, 0)
    """Device and number."""
    begin: int = 0
    """Where the last line that was read begins."""
    last: bytes = b""
    """That line: a run may write it anew, with an evaluation."""


class MetricsFile:
    """The rows of a `metrics.jsonl`, be it still written to.

    Steps ascend: of rows with the same step, or with a later step before them, the last ones count.
    A line that isn't whole yet is left for the next time; one that is broken is counted.

    Args:
        path: the file; it need not be there yet.
        texts: keys whose values are text, kept as they are.
    """

    def __init__(self, path: Path, texts: Sequence[str] = ()):
        self.path, self._texts = path, texts
        self.generation = 0
        """Grows when rows were read anew: those of before may not be there any more."""
        self._forget()

    def _forget(self) -> None:
        self._read, self._blocks = _Read(), list[Columns]()
        self.broken, self.errors = 0, list[ErrorRow]()

    @property
    def columns(self) -> Columns:
        """All rows, ascending by `step`."""
        if len(self._blocks) > 1:
            self._blocks = [_joined(self._blocks)]
        return self._blocks[0] if self._blocks else {"step": np.zeros(0)}

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.columns["step"])

    def refresh(self) -> None:
        """Read what is new; all, where the file isn't what it was.

        Raises:
            OSError: the file can't be read.
        """
        if not self.path.is_file():  # a pipe would be waited for
            if self._blocks:
                self._start_anew()
            return
        with self.path.open("rb") as file:
            status = os.fstat(file.fileno())
            which = (status.st_dev, status.st_ino)
            if self._read.last and not (which == self._read.file and self._goes_on(file)):
                self._start_anew()
            end = self._read.begin + len(self._read.last)
            file.seek(end)
            for begin, lines in _blocks_of_lines(file, end):
                self._take(lines)
                start = lines.rfind(b"\n", 0, -1) + 1
                self._read = _Read(which, begin + start, lines[start:])

    def _start_anew(self) -> None:
        self.generation += 1
        self._forget()

    def _goes_on(self, file: BinaryIO) -> bool:
        """Whether the last line that was read is still where it was."""
        file.seek(self._read.begin)
        return file.read(len(self._read.last)) == self._read.last

    def _take(self, lines: bytes) -> None:
        rows = []
        for row in _parsed(lines):
            if not _is_row(row):
                self.broken += 1
            elif "error" in row:
                error = ErrorRow(row["step"], str(row["error"]), str(row.get("reason", "")))
                self.errors.append(error)
            else:
                rows.append(row)
        if not rows:
            return
        block = _columns(rows, self._texts)
        before = self._blocks[-1]["step"] if self._blocks else None
        if before is not None and len(before) and block["step"][0] <= before[-1]:
            self._blocks = [_ascending(_joined([*self._blocks, block]))]
            self.generation += 1
        else:
            self._blocks.append(block)


def _blocks_of_lines(file: BinaryIO, begin: int) -> Iterator[tuple[int, bytes]]:
    """Yield whole lines in blocks, and where each block begins."""
    rest = b""
    while block := file.read(BLOCK):
        whole, line_feed, rest = (rest + block).rpartition(b"\n")
        if line_feed:
            yield begin, whole + line_feed
            begin += len(whole) + 1


def _parsed(lines: bytes) -> list[Any]:
    """Parse lines of JSON; None for one that is none."""
    try:  # a list at once takes half the time
        return from_json(b"[" + lines[:-1].replace(b"\n", b",") + b"]")
    except ValueError:
        return [_value(line) for line in lines[:-1].split(b"\n") if line.strip()]


def _value(line: bytes) -> Any:
    try:
        return parse_json(line)
    except ValueError:
        return None


def _is_row(row: Any) -> bool:
    step = row.get("step") if isinstance(row, dict) else None
    return type(step) is int and 0 <= step < 1 << 53


def _columns(rows: Sequence[Mapping[str, Any]], texts: Sequence[str]) -> Columns:
    found, keys = Columns(), dict[str, Any]()
    for row in rows:
        keys.update(row)
    for key in keys:
        try:  # most rows have the same keys: half of the time
            values = list(map(itemgetter(key), rows))
        except KeyError:
            values = [row.get(key) for row in rows]
        if key in texts:
            found[key] = np.array([v if isinstance(v, str) else "" for v in values], dtype=object)
        elif (column := _numbers(values)) is not None:
            found[key] = column
    return _ascending(found)


def _numbers(values: list[Any]) -> Float[np.ndarray, "row"] | None:
    """Return the numbers among the values; None where there is none."""
    kinds = set(map(type, values))
    if not kinds & {int, float}:
        return None
    if not kinds <= {int, float, type(None)}:
        values = [value if type(value) in (int, float) else None for value in values]
    try:
        column = np.array(values, dtype=np.float64)
    except OverflowError:  # an integer with hundreds of digits
        column = np.array([v if v and abs(v) < LARGEST else None for v in values], np.float64)
    column[~(np.abs(column) < LARGEST)] = np.nan
    return column


def _ascending(columns: Columns) -> Columns:
    """Leave out rows after which one of the same or an earlier step comes."""
    steps = columns["step"]
    later = np.minimum.accumulate(steps[::-1])[::-1]
    kept = np.append(steps[:-1] < later[1:], True)
    return columns if kept.all() else {key: values[kept] for key, values in columns.items()}


def _joined(blocks: Sequence[Columns]) -> Columns:
    return {
        key: np.concatenate([_column(block, key) for block in blocks])
        for key in dict.fromkeys(key for block in blocks for key in block)
    }


def _column(block: Columns, key: str) -> Shaped[np.ndarray, "row"]:
    return block[key] if key in block else np.full(len(block["step"]), np.nan)
