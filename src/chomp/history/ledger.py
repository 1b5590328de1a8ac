"""The ledger of a run: which documents each step was trained on, one JSON object a line.

A line with `data` holds the fingerprint of the corpus that the lines behind it were drawn from. A
line with `batch` is a step's; its `docs` are the numbers of rows by number of shard:

    {"step":0,"data":{"backend":"builtin","files":1504,"digest":"..."}}
    {"step":1,"batch":1,"hash":"8f0d1c...","tokens":2048,"targets":2031,"docs":{"17":[0],"4":[0]}}
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from chomp.append_file import AppendFile
from chomp.json_text import parse_json
from chomp.types import ROW_BITS, BatchStats


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


class Ledger:
    """Appends the steps of a run; lines that the disk has no room for wait in memory.

    Args:
        path: the file, in which no line is behind `step`.
        data: the corpus's fingerprint; kept where it isn't the newest there already.
        step: finished steps.
        warn: takes a line for the user if the file can't be written.
    """

    def __init__(self, path: Path, data: Mapping[str, Any], step: int, warn: Callable[[str], None]):
        newest = None
        for line in _lines(path):
            newest = line.text if line.kind == "data" else newest
        self._file = AppendFile(path, warn)
        if newest is None or parse_json(newest)["data"] != data:
            self._append({"step": step, "data": data})

    def record(self, step: int, batch: int, stats: BatchStats) -> None:
        """Append the line of a step that was trained on batch number `batch`."""
        documents: dict[int, list[int]] = {}
        for key in stats.keys:
            shard, row = divmod(key, 1 << ROW_BITS)
            documents.setdefault(shard, []).append(row)
        self._append(
            {
                "step": step,
                "batch": batch,
                "hash": f"{stats.hash:016x}",
                "tokens": stats.tokens,
                "targets": stats.targets,
                "docs": documents,
            }
        )

    def close(self) -> None:
        """Write what waits."""
        self._file.close()

    def _append(self, line: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(line, separators=(",", ":")) + "\n")


class Found(NamedTuple):
    """What a ledger says about a step: None where it has no such step, or no step at all."""

    entry: Entry | None
    first: int | None
    last: int | None


def find_entry(path: Path, step: int | None) -> Found:
    """Look for a step, or the newest with None, in a ledger that may still be written to.

    A line of an earlier step takes back those before it that are behind that step: a run that went
    back replaces them.
    """
    first = last = found = corpus = None
    for line in _lines(path):
        if line.kind == "data":
            corpus = line.text
            continue
        first, last = line.step if first is None else first, line.step
        if step is None or line.step == step:
            found = line.text, corpus
        elif line.step < step:
            found = None
    return Found(None if found is None else _entry(*found), first, last)


def _entry(text: bytes, corpus: bytes | None) -> Entry:
    values = parse_json(text)
    documents = [(int(shard), row) for shard, rows in values["docs"].items() for row in rows]
    data = parse_json(corpus)["data"] if corpus else {}
    return Entry(**values | {"docs": documents, "data": data})


class _Line(NamedTuple):
    step: int
    kind: str
    text: bytes


# Parsing a line whole takes 20 times as long, and a long run has millions.
_LINE = re.compile(rb'\{"step":(\d+),"(batch|data)":.*\}\n')


def _lines(path: Path) -> Iterator[_Line]:
    """Yield the whole lines; the last one may be cut short."""
    if path.exists():
        with path.open("rb") as file:
            for text in file:
                if match := _LINE.fullmatch(text):
                    yield _Line(int(match[1]), match[2].decode(), text)
