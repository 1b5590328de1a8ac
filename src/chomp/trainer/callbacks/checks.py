"""What is done at every step, or nearly so: signs of life, garbage, losses, devices."""

import jax

from chomp.errors import ChompError
from chomp.run.heartbeat import Heartbeat, Phase
from chomp.system.garbage_collection import settle
from chomp.trainer.callback import Callback, StepInfo
from chomp.trainer.loss_monitor import LossMonitor
from chomp.trainer.step_timer import StepTimer


class Beat(Callback):
    """Tells the heartbeat which step is finished."""

    name = "heartbeat"

    def __init__(self, heartbeat: Heartbeat):
        super().__init__()
        self._heartbeat = heartbeat

    def __call__(self, info: StepInfo) -> None:
        """Tell it."""
        self._heartbeat.finished(info.progress.step)


class FreezeGarbage(Callback):
    """Collects garbage once after the second step, then freezes what is left."""

    name = "settle"

    def __init__(self, timer: StepTimer):
        super().__init__()
        self._timer, self._steps = timer, 0

    def __call__(self, info: StepInfo) -> None:
        """Count the step; the collection may take a second, which is none of a step's time."""
        self._steps += 1
        if self._steps == 2:
            with self._timer.paused_after(info.state, Phase.TRAINING):
                settle()


class CollectLosses(Callback):
    """Gives the loss monitor what each step reports."""

    name = "watch"

    def __init__(self, losses: LossMonitor):
        super().__init__()
        self._losses = losses

    def __call__(self, info: StepInfo) -> None:
        """Give it, unread.

        Raises:
            DivergedError, Rewind: as the monitor judges the steps.
        """
        self._losses.collect(info.progress, info.stats, info.metrics)


class DeviceCheck(Callback):
    """Notices a state that has left the device it is trained on."""

    name = "device check"

    def __call__(self, info: StepInfo) -> None:
        """Check where the state's arrays are.

        Raises:
            ChompError: some are not on the default device's platform.
        """
        platform = jax.default_backend()
        found = {
            device.platform for leaf in jax.tree.leaves(info.state) for device in leaf.devices()
        }
        if found != {platform}:
            raise ChompError(
                f"the training state is on {sorted(found)}, not only on {platform}: "
                "something moved it; please report this"
            )
