"""The console: progress, rows, samples and messages of a run."""

import sys
from collections.abc import Callable
from typing import IO, Any

import rich.console
from rich.panel import Panel
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from chomp.system.console import Console
from chomp.system.terminal import SafeStream, guard_streams, printable, styled
from chomp.tracking.tracker import NullTracker, Row

_FIELDS: list[tuple[str, Callable[[Any], str]]] = [
    ("loss", lambda v: f"loss {v:.4f}"),
    ("grad_norm", lambda v: f"grad {v:.3f}"),
    ("lr", lambda v: f"lr {v:.2e}"),
    ("lr_muon", lambda v: f"muon {v:.2e}"),
    ("step_time_s", lambda v: f"{v * 1e3:.0f} ms/step"),
    ("tokens_per_sec", lambda v: f"{v:,.0f} tok/s"),
    ("mfu", lambda v: f"mfu {v:.1%}"),
    ("fraction_of_matmul_bound", lambda v: f"matmul {v:.0%}"),
    ("eval_loss", lambda v: f"eval {v:.4f}"),
    ("eval_bits_per_byte", lambda v: f"{v:.4f} bits/byte"),
    ("ema_eval_bits_per_byte", lambda v: f"{v:.4f} averaged"),
    ("packing_utilization", lambda v: f"packed {v:.1%}"),
    ("device_memory_gb", lambda v: f"{v:.2f} GiB"),
    ("error", lambda v: f"error {v}"),
]


def summary_line(row: Row, steps: int) -> str:
    """Return the compact line of a row."""
    step = str(row["step"]).rjust(len(str(steps)))
    values = [form(row[name]) for name, form in _FIELDS if row.get(name) is not None]
    return "  ".join([f"step {step}/{steps}", *values])


def _shown(record: Row) -> tuple[str, str]:
    return printable(record["prompt"]), printable(record["continuation"])


def open_console(*, steps: int, use_rich: bool, stream: IO[str] | None = None) -> "PlainConsole":
    """Return a console with panels and a progress bar if it is wanted and `stream` is a terminal.

    Args:
        steps: the run's last step.
        use_rich: `logging.console_use_rich`.
        stream: standard output by default.
    """
    out = sys.stdout if stream is None else stream
    if use_rich and out.isatty():
        return RichConsole(steps, rich.console.Console(file=styled(out), highlight=False))
    return PlainConsole(steps, out)


class PlainConsole(Console, NullTracker):
    """Lines of text, for files, pipes and those who like them."""

    def __init__(self, steps: int, stream: IO[str]):
        self._steps = steps
        safe = stream if isinstance(stream, SafeStream) else SafeStream(stream)
        safe.outlives = True  # neither a reader who has gone nor a full disk ends the run
        self._stream = safe

    def log(self, row: Row) -> None:
        """Print the row's line."""
        self.message(summary_line(row, self._steps))

    def sample(self, record: Row) -> None:
        """Print prompt and continuation."""
        prompt, continuation = _shown(record)
        self.message(f"--- prompt (step {record['step']})\n{prompt}")
        self.message(f"--- continuation\n{continuation}\n---")

    def message(self, text: str) -> None:
        """Print a line."""
        print(text, file=self._stream, flush=True)

    def close(self) -> None:
        """Write what the stream holds, or give it up."""
        self._stream.settle()

    def table(self, title: str, columns: list[str], rows: list[list[str]]) -> None:
        """Print aligned columns."""
        widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]
        self.message(title)
        for row in [columns, *rows]:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            self.message("  " + "  ".join(cells).rstrip())


class NoConsole(PlainConsole):
    """Shows nothing: for processes beside the one that has the console."""

    def __init__(self):
        super().__init__(0, sys.stderr)

    def message(self, text: str) -> None:
        """Show nothing."""

    def table(self, title: str, columns: list[str], rows: list[list[str]]) -> None:
        """Show nothing."""


class RichConsole(PlainConsole):
    """Panels, and a progress bar that the lines scroll above."""

    def __init__(self, steps: int, console: rich.console.Console):
        super().__init__(steps, console.file)
        self._console = console
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("elapsed"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
        )
        self._task: TaskID | None = None

    def progress(self, step: int) -> None:
        """Move the bar; the first call shows it."""
        if self._task is None:
            self._bar.start()
            guard_streams()  # what others print goes through the bar from here on
            # The time left is estimated from what this start has done itself.
            self._task = self._bar.add_task("training", total=self._steps, completed=step)
        self._bar.update(self._task, completed=step)

    def sample(self, record: Row) -> None:
        """Show prompt and continuation as panels."""
        # Text, not markup: a prompt may hold square brackets.
        prompt, continuation = map(Text, _shown(record))
        title = f"prompt, step {record['step']}"
        self._console.print(Panel(prompt, title=title, border_style="dim"))
        self._console.print(Panel(continuation, title="continuation", border_style="green"))

    def message(self, text: str) -> None:
        """Print a line above the bar, not wrapped."""
        self._console.print(Text(printable(text)), soft_wrap=True)

    def table(self, title: str, columns: list[str], rows: list[list[str]]) -> None:
        """Print a table."""
        table = Table(*columns, title=title, title_justify="left")
        for row in rows:
            table.add_row(*(Text(printable(cell)) for cell in row))
        self._console.print(table)

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._bar.stop()
        super().close()
