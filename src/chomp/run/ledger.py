"""The ledger of a run: which documents each step was trained on, one JSON object a line.

A line with `data` holds the fingerprint of the corpus that the lines after it were drawn from. A
line with `batch` is a step's; its `docs` are the numbers of rows by number of shard:

    {"step":0,"data":{"backend":"builtin","files":1504,"digest":"..."}}
    {"step":1,"batch":1,"hash":"8f0d1c...","tokens":2048,"targets":2031,"docs":{"17":[0],"4":[0]}}
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from chomp.run.ledger_search import newest_corpus
from chomp.system.append_file import AppendFile, Tail
from chomp.system.console import Console
from chomp.system.json_text import parse_json
from chomp.types import ROW_BITS, BatchStats


class Ledger:
    """Appends the steps of a run; lines that the disk has no room for wait in memory.

    Args:
        path: the file, in which no line is after `step`.
        data: the corpus's fingerprint; kept where it isn't the newest there already.
        step: finished steps.
        console: shows a warning if the file can't be written.
        there: number of the file's lines.
        brought_back: lines of before that aren't there.
    """

    def __init__(
        self,
        path: Path,
        data: Mapping[str, Any],
        step: int,
        console: Console,
        there: int = 0,
        brought_back: Sequence[str] = (),
    ):
        newest = newest_corpus(path)
        self._file = AppendFile(path, console, there)
        for text in brought_back:
            self._file.write(text)
            newest = text.encode() if '"data":' in text else newest
        # Also where only the order differs: the sources' order numbers their shards.
        if newest is None or json.dumps(_data(newest)) != json.dumps(data):
            self._append({"step": step, "data": data})

    def tail(self) -> Tail:
        """Return what isn't known to be on the disk."""
        return self._file.tail()

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


def _data(line: bytes) -> Any:
    try:
        return parse_json(line)["data"]
    except (ValueError, KeyError, TypeError):
        return None
