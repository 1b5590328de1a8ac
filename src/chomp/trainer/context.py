"""What a run has around its model and data, from its start to its end."""

from collections.abc import Sequence
from dataclasses import dataclass

from chomp.checkpoint.checkpointer import Checkpointer
from chomp.coordinator import Coordinator
from chomp.run.monitor import RunMonitor
from chomp.run.record import Parent
from chomp.run.run_folder import RunFolder
from chomp.system.signals import Signals
from chomp.tracking import PlainConsole


@dataclass(frozen=True)
class RunContext:
    """The surroundings of a run.

    Attributes:
        folder: the run folder.
        coordinator: the processes of the run.
        signals: stop and save requests to this process.
        console: shows lines to the user.
        monitor: heartbeat and record of the run.
        checkpointer: saves and restores; None: the run keeps no checkpoints.
        started: `time.perf_counter()` when the command began.
        allow_change: dotted keys of the configuration that may differ from a saved run's.
    """

    folder: RunFolder
    coordinator: Coordinator
    signals: Signals
    console: PlainConsole
    monitor: RunMonitor
    checkpointer: Checkpointer | None
    started: float
    allow_change: Sequence[str] = ()

    def is_branch_point(self, step: int) -> Parent | None:
        """Return the run that this one was branched from, if that was after `step`."""
        parent = self.monitor.recorder.record.parent
        return parent if parent and (parent.kind, parent.step) == ("branch", step) else None
