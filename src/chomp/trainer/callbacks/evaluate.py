"""Evaluation during training."""

import functools
from collections.abc import Iterator
from typing import Any

import optax

from chomp.data import EvaluationSet, EvaluationSets
from chomp.run.heartbeat import Phase
from chomp.tracking.tracker import Row
from chomp.trainer.callback import Callback, StepInfo
from chomp.trainer.control import RunControl
from chomp.trainer.program import TrainProgram
from chomp.trainer.score import Score, sum_losses
from chomp.trainer.step_timer import StepTimer
from chomp.types import Batch, TrainState


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
        data: EvaluationSets,
        control: RunControl,
        timer: StepTimer,
        every: int,
    ):
        super().__init__(every)
        self._program, self._data = program, data
        self._control, self._timer = control, timer

    def __call__(self, info: StepInfo) -> Row:
        """Return `eval_loss`, `eval_perplexity`, `eval_bits_per_byte` and `eval_targets`.

        Where there are several sets, also `eval_loss/NAME` and `eval_bits_per_byte/NAME` of each.
        With an average of the parameters, its losses too, as `ema_eval_loss` and so on.

        Raises:
            Interrupted: a stop was requested.
        """
        with self._timer.paused_after(info.state, Phase.EVALUATING):
            return self._control.unless_stopped(self._evaluate_both, info.state)

    def _evaluate_both(self, state: TrainState) -> Row:
        row = self.evaluate(state.params)
        if state.average is not None:
            of_average = self.evaluate(optax.tree.cast_like(state.average, state.params))
            del of_average["eval_targets"]
            row |= {f"ema_{key}": value for key, value in of_average.items()}
        return row

    def evaluate(self, params: Any) -> Row:
        """Return the metrics of `params`: nats per target, its exponential, bits per byte."""
        sources = {name: self._score(params, each) for name, each in self._data.sources.items()}
        others = {name: self._score(params, each) for name, each in self._data.others.items()}
        score = functools.reduce(Score.plus, sources.values())
        row: Row = {
            "eval_loss": score.loss,
            "eval_perplexity": score.perplexity,
            "eval_bits_per_byte": score.bits_per_byte,
            "eval_targets": score.targets,
        }
        for name in self._data.named:
            found = (sources | others)[name]
            row[f"eval_loss/{name}"] = found.loss
            row[f"eval_bits_per_byte/{name}"] = found.bits_per_byte
        return row

    def _score(self, params: Any, data: EvaluationSet) -> Score:
        nats, targets = sum_losses(
            self._program.summed_loss(params, batch) for batch in self._interruptible(data)
        )
        return Score(nats, targets, data.bytes)

    def _interruptible(self, data: EvaluationSet) -> Iterator[Batch]:
        for batch in data.batches():
            self._control.check_stop()
            self._timer.alive()
            yield batch
