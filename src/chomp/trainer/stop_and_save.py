"""Stop and save requests to one process: by signals, and by the minutes between checkpoints."""

import time
from typing import NamedTuple

from chomp.system.signals import Signals


class StopOrSaveRequest(NamedTuple):
    """What a process was asked for; what all of them act on."""

    stop: int | None = None
    """The signal that asks for a stop."""
    save: bool = False
    """A checkpoint after the next step: its minutes are over."""
    signalled: bool = False
    """A checkpoint after the next step: a signal asks for one."""


class StopAndSaveRequests:
    """The requests to this process.

    Args:
        signals: to this process.
        save_minutes: between checkpoints; None: minutes ask for none.
    """

    def __init__(self, signals: Signals, save_minutes: float | None = None):
        self.signals, self._save_minutes = signals, save_minutes
        self._start = time.monotonic()

    def own(self) -> StopOrSaveRequest:
        """Return what this process was asked for."""
        minutes = self._save_minutes
        late = minutes is not None and time.monotonic() - self._start >= 60 * minutes
        return StopOrSaveRequest(self.signals.stop, late, self.signals.save_requested)

    def accept(self, request: StopOrSaveRequest) -> None:
        """Take over what another process was asked for."""
        if request.stop is not None:
            self.signals.hear(request.stop)
        if request.signalled:
            self.signals.save_requested = True

    def checkpoint_saved(self) -> None:
        """Begin to count the minutes anew."""
        self._start = time.monotonic()
        self.signals.save_requested = False
