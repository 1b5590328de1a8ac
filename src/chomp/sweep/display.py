"""What a sweep shows while it runs: a live table in a terminal, lines elsewhere."""

import time

from rich.console import Console as RichConsole
from rich.live import Live
from rich.table import Table
from rich.text import Text

from chomp.sweep.plan import Point
from chomp.sweep.progress import Progress, RunRow
from chomp.sweep.record import State, SweepRecord
from chomp.sweep.summary import short_reason
from chomp.system.console import Console
from chomp.system.terminal import printable

REFRESH_SECONDS = 1.0
OTHER_LINES = 6
"""Lines of a terminal that the rows of the table don't take."""


class Display:
    """Tells in lines which run has ended, and how far the sweep is.

    Args:
        record: of the sweep.
        jobs: runs at once.
        console: shows the lines.
    """

    def __init__(self, record: SweepRecord, jobs: int, console: Console):
        self._record, self._jobs, self._console = record, jobs, console

    def __enter__(self) -> "Display":
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the terminal as it was."""

    def line(self, text: str) -> None:
        """Show a line."""
        self._console.message(text)

    def ended(self, progress: Progress, point: Point) -> None:
        """Tell of a run that has ended, or stopped."""
        run = self._record.of(point)
        row = progress.row(run)
        score = "" if row.score is None else f", {row.score:.4f}"
        reason = f": {short_reason(run)}" if run.reason else ""
        self.line(
            f"[{progress.done}/{len(self._record.runs)}] {row.arm} seed {row.seed}: {row.doing} "
            f"after step {row.step} of {row.steps}{score}{reason}{self._left(progress)}"
        )

    def tick(self, progress: Progress) -> None:
        """Show how far it is; called some times a second."""

    def _left(self, progress: Progress) -> str:
        seconds = progress.seconds_left(self._jobs)
        return "" if not seconds or seconds < 1 else f"; about {duration(seconds)} left"


class LiveDisplay(Display):
    """A table of the runs that is drawn anew every second.

    Args:
        record: of the sweep.
        jobs: runs at once.
        console: shows the lines, above the table.
        terminal: shows the table.
    """

    def __init__(self, record: SweepRecord, jobs: int, console: Console, terminal: RichConsole):
        super().__init__(record, jobs, console)
        self._terminal, self._drawn = terminal, 0.0
        self._live = Live(
            console=terminal,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> "LiveDisplay":
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def line(self, text: str) -> None:
        """Show a line above the table."""
        self._terminal.print(Text(printable(text)), soft_wrap=True)

    def ended(self, progress: Progress, point: Point) -> None:
        """Tell of a run that has failed; the table has the others."""
        run = self._record.of(point)
        if run.state in (State.FAILED, State.DIVERGED):
            self.line(f"{run.arm} seed {run.seed}: {run.state}: {short_reason(run)}")

    def tick(self, progress: Progress) -> None:
        """Draw the table, if it is old."""
        if time.monotonic() - self._drawn > REFRESH_SECONDS:
            self._live.update(self._table(progress), refresh=True)
            self._drawn = time.monotonic()

    def _table(self, progress: Progress) -> Table:
        runs = len(self._record.runs)
        caption = f"{progress.done} of {runs} runs done{self._left(progress)}"
        table = Table(caption=caption, caption_justify="left")
        for name in "arm", "seed", "", "step", "loss", "bits per byte":
            table.add_column(name, justify="left" if name in ("arm", "") else "right")
        shown, hidden = _within(progress.rows(), progress, self._terminal.height - OTHER_LINES)
        for row in shown:
            table.add_row(*map(Text, _cells(row)))
        if hidden:
            table.add_row(Text(f"... and {hidden} more"))
        return table


def _within(rows: list[RunRow], progress: Progress, room: int) -> tuple[list[RunRow], int]:
    """Return the rows that a terminal has room for, those around the running ones."""
    if len(rows) <= room:
        return rows, 0
    running = [n for n, row in enumerate(rows) if row.doing not in {*map(str, State)}]
    begin = max(0, min(running[0] - room // 2 if running else 0, len(rows) - room))
    return rows[begin : begin + room], len(rows) - room


def _cells(row: RunRow) -> list[str]:
    loss, score = ("-" if v is None else f"{v:.4f}" for v in (row.loss, row.score))
    return [printable(row.arm), str(row.seed), row.doing, f"{row.step}/{row.steps}", loss, score]


def duration(seconds: float) -> str:
    """Return a time in the unit that fits it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
