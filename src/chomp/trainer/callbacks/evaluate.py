"""Evaluation during training."""

from collections.abc import Iterator
from typing import Any

from chomp.data import EvaluationSet
from chomp.run.heartbeat import Phase
from chomp.tracking.tracker import Row
from chomp.trainer.callback import Callback, StepInfo
from chomp.trainer.control import RunControl
from chomp.trainer.program import TrainProgram
from chomp.trainer.score import Score, sum_losses
from chomp.trainer.step_timer import StepTimer
from chomp.types import Batch


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
        nats, targets = sum_losses(
            self._program.summed_loss(params, batch) for batch in self._interruptible_batches()
        )
        score = Score(nats, targets, self._data.bytes)
        return {
            "eval_loss": score.loss,
            "eval_perplexity": score.perplexity,
            "eval_bits_per_byte": score.bits_per_byte,
            "eval_targets": targets,
        }

    def _interruptible_batches(self) -> Iterator[Batch]:
        for batch in self._data.batches():
            self._control.check_stop()
            self._timer.alive()
            yield batch
