"""Checkpoints during training: what each holds besides arrays, and when one is made."""

from typing import Any

import jax

from chomp.checkpoint.checkpointer import Checkpointer
from chomp.checkpoint.compatibility import (
    ARITHMETIC,
    ENVIRONMENT,
    arithmetic,
    package_versions,
)
from chomp.data import merge_states
from chomp.run.heartbeat import Phase
from chomp.run.record import EventKind
from chomp.system.jax_runtime import cpu_threads, numeric_environment
from chomp.trainer.callback import Callback, StepInfo
from chomp.trainer.components import Components
from chomp.trainer.context import RunContext
from chomp.trainer.loop_context import LoopContext


def report_problems(checkpointer: Checkpointer, context: RunContext) -> None:
    """Tell the user, and the record of the run, what went wrong with saves."""
    for problem in checkpointer.problems():
        context.console.warn(problem)
        context.monitor.recorder.event(EventKind.NOT_SAVED, what=problem)


class SaveCheckpoint(Callback):
    """Saves the run, once its newest steps are known to be good.

    Args:
        checkpointer: writes it.
        components: of the run.
        context: of the run.
        loop: what the loop works with.
        every: steps between checkpoints; there may be more: by minutes, and by SIGUSR1.
    """

    name = "save"
    at_end = at_stop = True

    def __init__(
        self,
        checkpointer: Checkpointer,
        components: Components,
        context: RunContext,
        loop: LoopContext,
        every: int,
    ):
        super().__init__(every)
        self._checkpointer, self._components = checkpointer, components
        self._context, self._loop = context, loop

    def is_due(self, step: int) -> bool:
        """Whether a checkpoint follows this step."""
        return super().is_due(step) or self._loop.control.save_requested()

    def __call__(self, info: StepInfo) -> None:
        """Save the state of this step.

        Raises:
            DivergedError, Rewind: as the steps are judged.
        """
        context, loop = self._context, self._loop
        with loop.timer.paused_after(info.state, Phase.SAVING):
            loop.losses.check()
            if context.signals.save_requested:
                context.monitor.recorder.event(EventKind.SAVE, step=info.progress.step)
                context.console.message(f"SIGUSR1: saving step {info.progress.step}")
            data_state = context.coordinator.gather_and_decide(
                "data state", self._components.data.get_state(), decide=merge_states
            )
            self._checkpointer.save(info.state, info.progress, data_state, self._meta())
            report_problems(self._checkpointer, context)
            loop.control.checkpoint_saved()

    def _meta(self) -> dict[str, Any]:
        """Return what a resume compares, and goes on from; checkpoints of before have less."""
        components, loop = self._components, self._loop
        pending = loop.pending
        return {
            "config": components.given.model_dump(mode="json"),
            "identity": components.identity,
            "versions": package_versions(),
            ENVIRONMENT: numeric_environment(),
            ARITHMETIC: arithmetic(jax.default_backend()),
            "cpu_threads": cpu_threads() if jax.default_backend() == "cpu" else None,
            "losses": loop.losses.losses,
            "rejected_in_a_row": loop.losses.in_a_row,
            "skipped": self._context.monitor.recorder.skipped_batches,
            "window": pending.window,
            "unfinished": {"actions": pending.callbacks, "row": pending.row},
            "lines": loop.files.tails(),
        }
