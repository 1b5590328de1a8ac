"""What the loop and its callbacks work with, from a start or a rewind to the next."""

from dataclasses import dataclass

from chomp.tracking import Tracker
from chomp.trainer.callback import PendingWork
from chomp.trainer.control import RunControl
from chomp.trainer.loss_monitor import LossMonitor
from chomp.trainer.output_files import OutputFiles
from chomp.trainer.step_timer import StepTimer
from chomp.types import Progress


@dataclass(frozen=True)
class LoopContext:
    """The loop's surroundings.

    Attributes:
        control: gives batches and stop requests.
        timer: measures the steps.
        tracker: takes rows, samples and messages.
        files: of rows, which the run appends to.
        losses: judges the steps.
        pending: work of the newest step that is still to be done.
        start: the counts at the beginning.
    """

    control: RunControl
    timer: StepTimer
    tracker: Tracker
    files: OutputFiles
    losses: LossMonitor
    pending: PendingWork
    start: Progress
