"""What a page shows of one run, as JSON values."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from chomp.commands.status import read_status
from chomp.commands.status_lines import state_line
from chomp.errors import ResumeError
from chomp.report.curves import axes_of, curves, last_values
from chomp.report.flops import flops_per_step
from chomp.report.marks import marks_of
from chomp.report.metrics_file import Columns, MetricsFile
from chomp.report.samples import SamplesFile
from chomp.run.lineage import ancestors
from chomp.run.run_folder import RunFolder
from chomp.system.json_text import parse_json

EVALUATIONS = ("eval_loss", "eval_bits_per_byte", "ema_eval_loss", "ema_eval_bits_per_byte")
OF_STATUS = ("running", "step", "steps", "goodput", "skipped_batches", "seconds_left")
"""What a page takes over of `chomp status --json`."""
OF_START = (
    *("number", "time", "device", "host", "from_step", "last_step"),
    *("ended", "end_time", "error", "changes", "fallbacks"),
)
MOST_EVENTS = 50
"""Of a start, the newest."""


class RunView:
    """A run as a page shows it: its curves, and all else.

    Args:
        path: the run folder.
        name: what the page calls it.
        texts: keys of rows whose values are text, to be kept.

    Raises:
        ResumeError: the folder holds no run, or its metrics can't be read.
    """

    def __init__(self, path: Path, name: str, texts: Sequence[str] = ()):
        self.path, self.name = path, name
        self._folder = RunFolder(path)
        self._folder.require_run()
        self.config = self._read_config()
        logging = self.config.get("logging")
        file = logging.get("metrics_file") if isinstance(logging, dict) else None
        place = self._folder.inside(file if isinstance(file, str) else "metrics.jsonl")
        self.metrics = MetricsFile(place, texts)
        self._samples = SamplesFile(self._folder.samples)
        self._flops = flops_per_step(self.config)
        self.refresh()

    def _read_config(self) -> dict[str, Any]:
        """Return the resolved configuration; nothing where it can't be read."""
        try:
            values = parse_json(self._folder.resolved_config.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return values if isinstance(values, dict) else {}

    def refresh(self) -> None:
        """Read what is new.

        Raises:
            ResumeError: a file can't be read.
        """
        try:
            self.metrics.refresh()
            self._samples.refresh()
        except OSError as error:
            raise ResumeError(f"{error.filename} can't be read ({error.strerror})") from error

    def curves(self, first: int = 0) -> dict[str, Any]:
        """Return the curves, from row `first` on."""
        columns = self.metrics.columns
        axes = axes_of(columns, self._flops)
        return {
            "generation": self.metrics.generation,
            "first": first,
            "rows": self.metrics.rows,
            **curves(columns, axes, first),
        }

    def samples(self) -> dict[str, Any]:
        """Return the samples."""
        return {"all": self._samples.all, "samples": self._samples.samples}

    def facts(self) -> dict[str, Any]:
        """Return all else.

        Raises:
            ResumeError: the run isn't there any more.
        """
        found = read_status(self.path)
        status, columns = found.to_json(), self.metrics.columns
        problems = list(status["problems"])
        if self.metrics.broken:
            problems.append(f"{self.metrics.broken} broken line(s) of {self.metrics.path.name}")
        self.config = self._read_config()
        return {
            "name": self.name,
            "folder": str(self.path),
            "state": state_line(found),
            **{part: status[part] for part in OF_STATUS},
            "starts": [_start(start) for start in status["starts"]],
            "problems": problems,
            "last": last_values(columns),
            "best": _best(columns),
            "sources": _shares(columns, "targets/"),
            "marks": marks_of(status, columns, self.metrics.errors),
            "config": dict(flat(self.config)),
            "ancestors": [parent.as_values() for parent in ancestors(self.path)],
            "descendants": status["descendants"],
        }


def _start(start: Mapping[str, Any]) -> dict[str, Any]:
    return {part: start[part] for part in OF_START} | {"events": start["events"][-MOST_EVENTS:]}


def _best(columns: Columns) -> dict[str, tuple[int, float]]:
    """Return the step and the value of the least evaluation loss, by key."""
    found = {}
    for key, column in columns.items():
        if key.startswith(EVALUATIONS) and not np.isnan(column).all():
            row = np.nanargmin(column)
            found[key] = (int(columns["step"][row]), float(column[row]))
    return found


def _shares(columns: Columns, prefix: str) -> dict[str, float]:
    """Return the share that each key with a prefix has of their sum over all rows."""
    sums = {
        key.removeprefix(prefix): float(np.nansum(column))
        for key, column in columns.items()
        if key.startswith(prefix)
    }
    total = sum(sums.values())
    return {name: value / total for name, value in sums.items()} if total > 0 else {}


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each value of nested mappings with its dotted key."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
