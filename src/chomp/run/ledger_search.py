"""Steps found in a ledger, be it of millions of lines, and be it still written to.

Its steps ascend: what a resume or a rewind does again is taken out of the file first.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from chomp.errors import DataError
from chomp.system.json_text import parse_json

CHUNK = 1 << 16


class Entry(NamedTuple):
    """One step's line, with the corpus's fingerprint."""

    step: int
    batch: int
    """Number of the batch, counted from 1 in the order drawn."""
    hash: str
    """`BatchStats.hash` in hexadecimal."""
    tokens: int
    targets: int
    docs: list[tuple[int, int]]
    """Shard and row of each; shards in the order drawn."""
    data: Mapping[str, Any]


class Found(NamedTuple):
    """A step's entry in a ledger, and its first and last step; None where there is none."""

    entry: Entry | None
    first: int | None
    last: int | None


def find_entry(path: Path, step: int | None) -> Found:
    """Look for a step, or the newest with None.

    Raises:
        DataError: its line is broken.
    """
    if not path.exists():
        return Found(None, None, None)
    with path.open("rb") as file:
        first = next((line for line in _lines(file, 0) if line.kind == "batch"), None)
        last = _last(file)
        if first is None or last is None:
            return Found(None, None, None)
        line = last if step in (None, last.step) else None
        if step is not None and first.step <= step < last.step:
            line = _bisect(file, step)
        entry = line and _entry(path, line, _corpus_before(file, line.start))
        return Found(entry, first.step, last.step)


def newest_corpus(path: Path) -> bytes | None:
    """Return the last line that tells of a corpus."""
    if not path.exists():
        return None
    with path.open("rb") as file:
        return _corpus_before(file, file.seek(0, 2))


class _Line(NamedTuple):
    start: int
    step: int
    kind: str
    text: bytes


# Parsing a line whole takes 20 times as long.
_LINE = re.compile(rb'\{"step":(\d+),"(batch|data)":.*\}\n')


def _lines(file: BinaryIO, start: int) -> Iterator[_Line]:
    """Yield the whole lines from the place of one on; the last one may be cut short."""
    file.seek(start)
    for text in file:
        if match := _LINE.fullmatch(text):
            yield _Line(start, int(match[1]), match[2].decode(), text)
        start += len(text)


def _last(file: BinaryIO) -> _Line | None:
    """Return the last step's line."""
    for start in _starts_before(file, file.seek(0, 2)):
        line = next(_lines(file, start), None)
        if line and line.start == start and line.kind == "batch":
            return line
    return None


def _starts_before(file: BinaryIO, end: int) -> Iterator[int]:
    """Yield where the lines before a place begin, the last one first."""
    while end > 0:
        begin = max(0, end - CHUNK)
        file.seek(begin)
        chunk = file.read(end - begin)
        at = len(chunk)
        while (at := chunk.rfind(b"\n", 0, at)) >= 0:
            yield begin + at + 1
        end = begin
    yield 0


def _bisect(file: BinaryIO, step: int) -> _Line | None:
    low, high = 0, file.seek(0, 2)
    while high - low > CHUNK:  # the line begins at low or after it, and before high
        middle = (low + high) // 2
        file.seek(middle)
        line = next(_lines(file, middle + len(file.readline())), None)
        if line is None or line.start >= high or line.step >= step:
            high = middle
        else:
            low = line.start
    for line in _lines(file, low):
        if line.kind == "batch" and line.step >= step:
            return line if line.step == step else None
    return None


def _corpus_before(file: BinaryIO, end: int) -> bytes | None:
    """Return the last line about a corpus that begins before a place."""
    mark = b',"data":'
    while end > 0:
        begin = max(0, end - CHUNK)
        file.seek(begin)
        chunk = file.read(end - begin + len(mark))  # one that begins in it may end after it
        at = len(chunk)
        while (at := chunk.rfind(mark, 0, at)) >= 0:
            start = next(_starts_before(file, begin + at))
            line = next(_lines(file, start), None)
            if line and line.start == start and line.kind == "data":
                return line.text
        end = begin
    return None


def _entry(path: Path, line: _Line, corpus: bytes | None) -> Entry:
    try:
        values = parse_json(line.text)
        documents = [(int(shard), row) for shard, rows in values["docs"].items() for row in rows]
        data = parse_json(corpus)["data"] if corpus else {}
        return Entry(**values | {"docs": documents, "data": data})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: the line of step {line.step} is broken ({error})") from error
