"""The training step: one pure function from state and batch to state and metrics."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, PRNGKeyArray

from chomp.models import LanguageModel
from chomp.optim import Optimizer, Rates
from chomp.trainer.layer_norms import layer_norms
from chomp.types import Batch, StepMetrics, TrainState

Sums = tuple[Array, Any, Array]
"""Summed loss, summed gradients, number of targets."""
Accumulate = Callable[[Any, Batch, PRNGKeyArray | None], Sums]
StepResult = tuple[TrainState, StepMetrics]
TrainStep = Callable[[TrainState, Batch], StepResult]
StepFunction = Callable[[TrainState, Batch, Rates], StepResult]


def init_state(model: LanguageModel, optimizer: Optimizer, seed: int) -> TrainState:
    """Make the state before the first step; to be compiled (eager, it takes seconds longer)."""
    init_key, run_key = jax.random.split(jax.random.PRNGKey(seed))
    params = model.init(init_key)
    # The moments are float32 whatever the parameters are stored in, as the gradients are.
    opt_state = optimizer.init(jax.tree.map(lambda p: p.astype(jnp.float32), params))
    step, rejected = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)
    return TrainState(params, opt_state, step, rejected, run_key)


def make_train_step(
    model: LanguageModel,
    optimizer: Optimizer,
    *,
    deterministic: bool,
    watch: bool = False,
    spread: Callable[[Accumulate], Accumulate] | None = None,
) -> StepFunction:
    """Return the step function (not yet compiled). What `Rates` holds is an input of it.

    Gradients are accumulated over the batch's first axis: each microbatch adds its *summed* loss
    and gradient, and one division by the step's number of targets follows, so that a target
    weighs the same wherever padding and masks put it. Exactly one optimizer update is made, or
    none where loss or gradients are not finite (counted in `TrainState.rejected`).

    Args:
        model: makes the loss.
        optimizer: makes the update.
        deterministic: switches dropout off.
        watch: has the metrics hold the norms of each layer. XLA fuses other operations then, so
            that the new state is rounded otherwise.
        spread: has the sums made by several devices, each of which takes its rows.
    """
    sums = functools.partial(_accumulate, model)
    if spread:
        sums = spread(sums)

    def train_step(state: TrainState, batch: Batch, rates: Rates) -> tuple[TrainState, StepMetrics]:
        key = None if deterministic else jax.random.fold_in(state.key, state.step)
        loss, grads, targets = sums(state.params, batch, key)
        weight = 1.0 / jnp.maximum(targets, 1)
        loss, grads = loss * weight, jax.tree.map(lambda g: g * weight, grads)
        grad_norm = optax.tree.norm(grads)
        finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params, rates)
        params = optax.apply_updates(state.params, updates)
        params, opt_state = _where(finite, (params, opt_state), (state.params, state.opt_state))
        norms = None
        if watch:
            made = _where(finite, updates, optax.tree.zeros_like(updates))
            norms = layer_norms(grads, made, state.params)
        rejected = state.rejected + ~finite
        state = TrainState(params, opt_state, state.step + 1, rejected, state.key)
        # A copy, so that reading the metrics never holds on to a buffer of the donated state.
        return state, StepMetrics(loss, grad_norm, targets, rejected + 0, norms)

    return train_step


def _accumulate(model: LanguageModel, params: Any, batch: Batch, key: PRNGKeyArray | None) -> Sums:
    """Return the sums of loss and gradient over all targets of the batch, and their number."""
    grad = jax.value_and_grad(model.loss, has_aux=True)

    def add_microbatch(total: tuple[Any, ...], item: tuple[Array, Batch]) -> tuple[Any, None]:
        index, rows = item
        row_key = None if key is None else jax.random.fold_in(key, index)
        (loss, targets), grads = grad(params, rows, row_key)
        return jax.tree.map(jnp.add, total, (loss, grads, targets)), None

    accum = batch.input_ids.shape[0]
    zeros = optax.tree.zeros_like(params, dtype=jnp.float32)
    total = (jnp.zeros(()), zeros, jnp.zeros((), jnp.int32))
    return jax.lax.scan(add_microbatch, total, (jnp.arange(accum), batch))[0]


def _where(condition: Bool[Array, ""], new: Any, old: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)
