"""A JAX profiler trace of a few steps."""

from pathlib import Path

import jax

from chomp.trainer.callback import Callback, StepInfo


class Profile(Callback):
    """Records a trace of a few steps, once the first ones are over.

    Args:
        folder: gets the trace.
        start_step: finished steps at the start.
    """

    name = "profile"
    FIRST, STEPS = 5, 5

    def __init__(self, folder: Path, start_step: int):
        super().__init__()
        self._folder, self._start_step = folder, start_step
        self._recording = False

    def __call__(self, info: StepInfo) -> None:
        """Start or stop the trace when its step has come."""
        done = info.progress.step - self._start_step
        if done == self.FIRST:
            jax.block_until_ready(info.state.step)
            jax.profiler.start_trace(str(self._folder))
            self._recording = True
        elif done == self.FIRST + self.STEPS:
            jax.block_until_ready(info.state.step)
            self.close()

    def close(self) -> None:
        """Write the trace, if the run ended while it was being recorded."""
        if self._recording:
            self._recording = False
            jax.profiler.stop_trace()
