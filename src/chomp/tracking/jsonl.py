"""Files of a run: rows and samples as JSON lines, and the log."""

import errno
import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from math import isfinite
from pathlib import Path

from chomp.errors import ConfigError, ResumeError
from chomp.system.append_file import AppendFile, Tail
from chomp.system.atomic_file import new_file, open_plain, remedy, unshare
from chomp.system.console import Console
from chomp.system.json_text import parse_json
from chomp.system.terminal import is_standard_stream, printable
from chomp.tracking.tracker import NullTracker, Row


class JsonLines(NullTracker):
    """Keeps rows in `metrics` and samples in `samples`, one JSON object a line.

    `console` shows a warning if the disk has no room for them; the run goes on.
    """

    def __init__(
        self,
        metrics: Path,
        samples: Path,
        console: Console,
        there: tuple[int, int] = (0, 0),
    ):
        """Open both, to append; `there` are the numbers of their lines.

        Raises:
            ConfigError: one can't be used, whatever the room on the disk.
        """
        for path in (metrics, samples):
            _check_usable("logging.metrics_file", path)
        self._metrics = AppendFile(metrics, console, there[0])
        self._samples = AppendFile(samples, console, there[1])
        self._row = Row()

    def log(self, row: Row) -> None:
        """Append a row; one for the newest row's step is merged into it."""
        if row["step"] == self._row.get("step") and "error" not in row:
            row = self._row | row
            self._metrics.replace_last(_line(row))
        else:
            self._metrics.write(_line(row))
        self._row = row

    def sample(self, record: Row) -> None:
        """Append a sample."""
        self._samples.write(_line(record))

    def bring_back(self, metrics: Sequence[str], samples: Sequence[str]) -> None:
        """Append lines of before that aren't there."""
        for line in metrics:
            self._metrics.write(line)
        for line in samples:
            self._samples.write(line)

    def tails(self) -> dict[str, Tail]:
        """Return what isn't known to be on the disk, by file."""
        return {"metrics": self._metrics.tail(), "samples": self._samples.tail()}

    def close(self) -> None:
        """Close both files."""
        self._metrics.close()
        self._samples.close()


def _line(row: Row) -> str:
    # JSON has no NaN: many readers would refuse the whole line.
    values = {k: None if isinstance(v, float) and not isfinite(v) else v for k, v in row.items()}
    return json.dumps(values, ensure_ascii=False, allow_nan=False) + "\n"


def keep_rows_up_to(step: int, path: Path) -> bool:
    """Take the rows after `step` out of `path`, with any line that a crash cut short.

    A run resumed at `step` writes them again, so that each step stands there once. What is taken
    out is kept in a file beside it, `NAME.replaced.jsonl`.

    Returns:
        Whether there were any.

    Raises:
        ResumeError: there is no room to do so.
    """
    if not path.is_file():  # whoever opens it to append says what is wrong with it
        return False
    replacement = path.with_name(path.name + ".tmp")
    replaced, whole = [], True
    try:
        # In bytes, line by line: a ledger may be large, and text has more ends of lines than JSON.
        with path.open("rb") as file, new_file(replacement) as kept:
            for line in file:
                whole = line.endswith(b"\n")
                line = line if whole else line + b"\n"
                if _is_row_up_to(step, line):
                    kept.write(line)
                else:
                    replaced.append(line)
        if replaced:
            beside = path.with_suffix(".replaced.jsonl")
            unshare(beside)
            with open(beside, "ab", opener=open_plain) as file:
                file.writelines(replaced)
        if replaced or not whole:
            os.replace(replacement, path)
        else:
            replacement.unlink()
    except OSError as error:
        replacement.unlink(missing_ok=True)
        raise ResumeError(
            f"{path}: rows after step {step} can't be removed ({error.strerror}); "
            f"{remedy(error)} and resume again"
        ) from error
    return bool(replaced)


def rows_up_to(step: int, path: Path) -> Iterator[bytes]:
    """Yield the lines of rows up to `step`, as they are; none where there is no such file.

    Raises:
        OSError: it can't be read.
    """
    if path.is_file():
        with path.open("rb") as file:
            yield from (line for line in file if line.endswith(b"\n") and _is_row_up_to(step, line))


def _check_usable(key: str, path: Path) -> None:
    """Check that `path` can be opened to append; a full disk is no obstacle.

    Raises:
        ConfigError: it can't; names `key`.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_fifo():
            raise OSError(errno.EINVAL, "it is a pipe", str(path))
        path.open("ab").close()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return
        reason = f"{error.filename} can't be used ({error.strerror})"
        problem = f"{key}: {reason}; move it away, or give another path"
        raise ConfigError([problem]) from error


def _is_row_up_to(step: int, line: bytes) -> bool:
    try:
        row = parse_json(line)
    except ValueError:  # no JSON, or no UTF-8
        return False
    # The row of a crash tells of an ended run, not of a step.
    if not isinstance(row, dict) or "error" in row:
        return False
    number = row.get("step")
    return isinstance(number, int) and number <= step


class _LogFile(logging.StreamHandler[AppendFile]):
    """Log lines in a file; a full disk puts no traceback for each of them on the console."""

    def close(self) -> None:
        self.stream.close()
        super().close()


class _Printable(logging.Formatter):
    """Log lines that a terminal can show (`tail -f`), whatever a document or file name holds."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return printable(super().format(record))


def log_to_file(path: Path | None, level: str, console: Console) -> None:
    """Send all log records, third parties' included, to `path`; None: nowhere.

    Warnings of the Python kind are logged as well, and exceptions that Python can raise nowhere
    (those of TensorStore's threads, after a disk was full). Nothing of it reaches the console;
    `console` shows a warning if the disk has no room for it.

    Raises:
        ConfigError: the file can't be used, whatever the room on the disk.
    """
    if path is not None and not is_standard_stream(path):
        _check_usable("logging.log_file", path)
    handler = logging.NullHandler() if path is None else _LogFile(_append_to(path, console))
    handler.setFormatter(_Printable("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.captureWarnings(True)
    sys.unraisablehook = _log_unraisable
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("absl").handlers.clear()


def _append_to(path: Path, console: Console) -> AppendFile:
    if is_standard_stream(path) or (path.exists() and not path.is_file()):
        return AppendFile(path, console, follow_link=True)
    return AppendFile(path.resolve(), console)


def _log_unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    error = unraisable.exc_value
    logging.getLogger(__name__).error("ignored in %r", unraisable.object, exc_info=error)
