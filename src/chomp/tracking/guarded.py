"""Trackers whose failures don't reach the run."""

import logging
import queue
import threading
from collections.abc import Callable
from typing import Any

from chomp.errors import ConfigError
from chomp.system.console import Console
from chomp.tracking.tracker import NullTracker, Row, Tracker

log = logging.getLogger(__name__)

ANSWER_SECONDS = 30.0
"""Longest that a service may take to answer at the start, and to take the last rows at the end."""


class GuardedTracker(NullTracker):
    """A tracker that may fail: the run goes on, with one warning, and later reports are tried."""

    def __init__(self, name: str, tracker: Tracker, console: Console):
        self._name, self._tracker, self._console = name, tracker, console
        self._warned = False

    def log(self, row: Row) -> None:
        """Hand on a row."""
        self._try("log", row)

    def sample(self, record: Row) -> None:
        """Hand on a sample."""
        self._try("sample", record)

    def progress(self, step: int) -> None:
        """Hand on that `step` is finished."""
        self._try("progress", step)

    def message(self, text: str) -> None:
        """Hand on a line."""
        self._try("message", text)

    def close(self) -> None:
        """Close the tracker."""
        self._try("close")

    def _try(self, method: str, *values: Any) -> None:
        try:
            getattr(self._tracker, method)(*values)
        except Exception as error:
            log.warning("tracker %s", self._name, exc_info=error)
            self.warn(error)

    def warn(self, error: Exception) -> None:
        """Show an error, if it is the first."""
        if not self._warned:
            self._warned = True
            self._console.warn(
                f"tracker {self._name}: {one_line(error)}; the run goes on, and its metrics file "
                "has every row"
            )


class BackgroundTracker(NullTracker):
    """A tracker of a service, which is called in a thread of its own: nothing waits for it.

    Args:
        name: of the tracker.
        make: connects to the service, and returns its tracker.
        console: shows a warning when it fails for the first time.

    Raises:
        ConfigError: the service refuses, or doesn't answer in time.
    """

    def __init__(self, name: str, make: Callable[[], Tracker], console: Console):
        self._name, self._make, self._console = name, make, console
        self._reports: queue.SimpleQueue[tuple[str, Row] | None] = queue.SimpleQueue()
        self._connected: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=f"tracker {name}", daemon=True)
        self._thread.start()
        try:
            error = self._connected.get(timeout=ANSWER_SECONDS)
        except queue.Empty:
            error = TimeoutError(f"no answer in {ANSWER_SECONDS:.0f} s")
        if isinstance(error, ConfigError):
            raise error
        if error is not None:
            raise ConfigError([f"logging.trackers: {name}: {one_line(error)}"]) from error

    def log(self, row: Row) -> None:
        """Let the thread hand on a row."""
        self._reports.put(("log", dict(row)))

    def sample(self, record: Row) -> None:
        """Let the thread hand on a sample."""
        self._reports.put(("sample", dict(record)))

    def close(self) -> None:
        """Wait for the thread to hand on everything, but not for long."""
        self._reports.put(None)
        self._thread.join(ANSWER_SECONDS)
        if self._thread.is_alive():
            waiting = self._reports.qsize()
            self._console.warn(
                f"tracker {self._name}: no answer in {ANSWER_SECONDS:.0f} s; it lacks the last "
                f"{max(1, waiting)} report(s), which the run's metrics file has"
            )

    def _work(self) -> None:
        try:
            tracker = GuardedTracker(self._name, self._make(), self._console)
        except Exception as error:  # noqa: BLE001 - raised by the thread that waits for it
            self._connected.put(error)
            return
        self._connected.put(None)
        while (report := self._reports.get()) is not None:
            method, values = report
            getattr(tracker, method)(values)
        tracker.close()


def one_line(error: Exception) -> str:
    """Return what an error says, and of what kind it is, in one line."""
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said}"[:300] if said else type(error).__name__
