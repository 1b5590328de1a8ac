"""Files of a run: rows and samples as JSON lines, and the log."""

import json
import logging
import os
import sys
from math import isfinite
from pathlib import Path
from typing import TextIO

from chomp.tracking.tracker import Row, Silent


class JsonLines(Silent):
    """Keeps rows in `metrics` and samples in `samples`, one JSON object a line."""

    def __init__(self, metrics: Path, samples: Path):
        metrics.parent.mkdir(parents=True, exist_ok=True)
        self._metrics = metrics.open("a", encoding="utf-8")
        self._samples = samples.open("a", encoding="utf-8")
        self._row_start, self._row = self._metrics.tell(), Row()

    def log(self, row: Row) -> None:
        """Append a row; one for the newest row's step is merged into it."""
        if row["step"] == self._row.get("step") and "error" not in row:
            self._metrics.truncate(self._row_start)
            row = self._row | row
        else:
            self._row_start = self._metrics.tell()
        self._row = row
        _append(self._metrics, row)

    def sample(self, record: Row) -> None:
        """Append a sample."""
        _append(self._samples, record)

    def close(self) -> None:
        """Close both files."""
        self._metrics.close()
        self._samples.close()


def _append(file: TextIO, row: Row) -> None:
    # JSON has no NaN: many readers would refuse the whole line.
    values = {k: None if isinstance(v, float) and not isfinite(v) else v for k, v in row.items()}
    file.write(json.dumps(values, ensure_ascii=False, allow_nan=False) + "\n")
    file.flush()


def keep_rows_up_to(step: int, path: Path) -> None:
    """Take the rows behind `step` out of `path`, with any line that a crash cut short.

    A run resumed at `step` writes them again, so that each step stands there once. What is taken
    out is kept in a file beside it, `NAME.replaced.jsonl`.
    """
    if not path.exists():
        return
    kept, replaced = [], []
    # Not `splitlines`, which also splits at characters that JSON leaves inside a text.
    text = path.read_text(encoding="utf-8", errors="replace")
    for line in filter(None, text.split("\n")):
        (kept if _is_row_up_to(step, line) else replaced).append(line + "\n")
    if "".join(kept) == text:
        return
    with path.with_suffix(".replaced.jsonl").open("a", encoding="utf-8") as file:
        file.writelines(replaced)
    replacement = path.with_name(path.name + ".tmp")
    replacement.write_text("".join(kept), encoding="utf-8")
    os.replace(replacement, path)


def last_logged_step(path: Path) -> int:
    """Return the newest step of a file of rows; 0 without any."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    return max((_step_of(line) or 0 for line in text.split("\n")), default=0)


def _is_row_up_to(step: int, line: str) -> bool:
    number = _step_of(line)
    return number is not None and number <= step


def _step_of(line: str) -> int | None:
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return None
    # The row of a crash tells of an ended run, not of a step.
    if not isinstance(row, dict) or "error" in row:
        return None
    number = row.get("step")
    return number if isinstance(number, int) else None


def log_to_file(path: Path | None, level: str) -> None:
    """Send all log records, third parties' included, to `path`; None: nowhere.

    Warnings of the Python kind are logged as well, and exceptions that Python can raise nowhere
    (those of TensorStore's threads, after a disk was full). Nothing of it reaches the console.
    """
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
    handler: logging.Handler = (
        logging.NullHandler() if path is None else logging.FileHandler(path, encoding="utf-8")
    )
    form = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    logging.captureWarnings(True)
    sys.unraisablehook = _log_unraisable
    logging.basicConfig(level=level, handlers=[handler], format=form, force=True)
    logging.getLogger("absl").handlers.clear()


def _log_unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    error = unraisable.exc_value
    logging.getLogger(__name__).error("ignored in %r", unraisable.object, exc_info=error)
