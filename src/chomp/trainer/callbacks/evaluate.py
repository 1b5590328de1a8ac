"""Evaluation during training."""

import math
from typing import Any

import jax

from chomp.data import EvaluationSet
from chomp.run.heartbeat import Phase
from chomp.tracking.tracker import Row
from chomp.trainer.callback import Callback, StepInfo
from chomp.trainer.control import RunControl
from chomp.trainer.program import TrainProgram
from chomp.trainer.step_timer import StepTimer


class Evaluate(Callback):
    """Scores every target of the evaluation documents once.

    Args:
        program: has the loss.
        data: the evaluation documents.
        control: interrupts the work when a stop is requested.
        timer: takes the time out of the steps'.
        every: steps between evaluations.
    """

    name = "evaluate"
    at_end = True

    def __init__(
        self,
        program: TrainProgram,
        data: EvaluationSet,
        control: RunControl,
        timer: StepTimer,
        every: int,
    ):
        super().__init__(every)
        self._program, self._data = program, data
        self._control, self._timer = control, timer

    def __call__(self, info: StepInfo) -> Row:
        """Return `eval_loss`, `eval_perplexity` and `eval_bits_per_byte`.

        Raises:
            Interrupted: a stop was requested.
        """
        with self._timer.paused_after(info.state, Phase.EVALUATING):
            return self._control.unless_stopped(self.evaluate, info.state.params)

    def evaluate(self, params: Any) -> Row:
        """Return the metrics of `params`: nats per target, its exponential, bits per byte."""
        parts = []
        for batch in self._data.batches():
            self._control.check_stop()
            self._timer.alive()
            parts.append(self._program.summed_loss(params, batch))
            jax.block_until_ready(parts[-2:-1])  # one ahead, so that a stop is heard soon
        losses, counts = zip(*jax.device_get(parts), strict=True)
        # Summed in float64 on the host: thousands of float32 sums would lose digits.
        nats, targets = math.fsum(map(float, losses)), sum(map(int, counts))
        loss = nats / targets
        return {
            "eval_loss": loss,
            "eval_perplexity": math.exp(min(loss, 700.0)),
            "eval_bits_per_byte": nats / math.log(2) / self._data.bytes,
            "eval_targets": targets,
        }
