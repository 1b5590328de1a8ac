"""An average of the parameters over the steps, kept beside them (`train.ema`)."""

import functools
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import optax

from chomp.config import TrainConfig
from chomp.errors import ResumeError
from chomp.trainer.step import TrainStep
from chomp.types import Batch, StepMetrics, TrainState


def average_shapes(params: Any) -> Any:
    """Return shapes, float32 and places of the average of parameters (shapes with places)."""
    return jax.tree.map(_in_float32, params)


def with_average(state: TrainState) -> TrainState:
    """Return the state with an average that begins as a copy of the parameters, if it has none."""
    if state.average is not None:
        return state
    # A copy: both are donated.
    return replace(state, average=jax.tree.map(jnp.copy, _cast(state.params)))


def check_average(train: TrainConfig, began: int | None, step: int) -> None:
    """Check that a run which goes on can have the average that its configuration asks for.

    Args:
        train: the section of the configuration.
        began: steps after which the checkpoint's average began; None: it holds none.
        step: of the checkpoint.

    Raises:
        ResumeError: steps that belong to it are not in it.
    """
    if train.ema is None:
        return
    begin = step if began is None else min(began, step)
    if train.ema_from < begin:
        held = "holds none" if began is None else f"holds one of the steps after {begin}"
        raise ResumeError(
            f"train.ema_from: must be {begin} or later (got {train.ema_from}): an average can't "
            f"take in steps that are over, and the checkpoint of step {step} {held}"
        )


class AveragedStep:
    """A training step, and after it the average of the parameters, by a program of its own.

    The step never sees the average, so that a run has the same bits with and without it. Of n
    steps in it, the newest has the share `max(1 - ema, 1 / n)`: a plain mean at first, without the
    bias of a first value (Polyak and Juditsky, 1992, for the mean; Busbridge et al.,
    arXiv:2307.13813, for the exponential one).

    Args:
        step: takes a state without an average.
        train: the section, with decay and beginning.
    """

    def __init__(self, step: TrainStep, train: TrainConfig):
        self._step, self._ema, self._begin = step, train.ema, train.ema_from

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, StepMetrics]:
        """Take the step; the state, which has an average, is donated."""
        average = state.average
        state, metrics = self._step(replace(state, average=None), batch)
        average = _updated(average, state.params, state.step, self._ema, self._begin)
        return replace(state, average=average), metrics


# The last two are constants: of a value from the host, processes would have to agree first.
@functools.partial(jax.jit, donate_argnums=0, static_argnums=(3, 4))
def _updated(average: Any, params: Any, step: Any, ema: float, begin: int) -> Any:
    # Until it begins it is the newest parameters.
    share = jnp.maximum(1 - ema, 1.0 / jnp.maximum(step - begin, 1))
    return optax.incremental_update(_cast(params), average, share)


def _cast(params: Any) -> Any:
    return optax.tree.cast(params, jnp.float32)


def _in_float32(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, jnp.float32, sharding=leaf.sharding)
