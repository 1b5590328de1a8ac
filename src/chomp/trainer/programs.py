"""The compiled programs of a run: training step and evaluation."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from chomp.config import TrainConfig
from chomp.trainer import TrainStep, make_train_step
from chomp.trainer.components import Components, TrainProgram
from chomp.types import Batch


@dataclass(frozen=True)
class CompiledStep:
    """A training step ready to be called.

    Attributes:
        step: state and batch to state and metrics; the state's buffers are donated.
        seconds: time to compile, or to load from the compile cache.
        temp_bytes: scratch memory of the program; None where that isn't known.
    """

    step: TrainStep
    seconds: float
    temp_bytes: int | None


def compile_step(setup: Components, meanwhile: Callable[[], None] = lambda: None) -> CompiledStep:
    """Compile the training step once, for the shapes of every batch.

    Args:
        setup: the parts.
        meanwhile: is called while XLA compiles, which leaves Python to others.
    """
    train = setup.config.train
    if not train.jit:
        meanwhile()
        return CompiledStep(_train_step(setup.learner), 0.0, None)
    start = time.perf_counter()
    lowered = lower_step(setup.learner, train)

    def finish() -> CompiledStep:
        program = lowered.compile()
        memory = program.memory_analysis()
        scratch = memory.temp_size_in_bytes if memory else None
        return CompiledStep(program, time.perf_counter() - start, scratch)

    with ThreadPoolExecutor(1) as threads:
        compiling = threads.submit(finish)
        meanwhile()
        return compiling.result()


def lower_step(learner: TrainProgram, train: TrainConfig) -> jax.stages.Lowered:
    """Trace and lower the training step for a run's state and batches."""
    return trace_step(learner, train).lower()


def trace_step(learner: TrainProgram, train: TrainConfig) -> jax.stages.Traced:
    """Trace the training step for the shapes and places of a run's state and batches."""
    batch = batch_shapes(train.grad_accum, train.batch_size, train.seq_len)
    # The next step takes the state from where this one leaves it.
    results = (learner.placement.shardings(learner.shapes), None)
    program = jax.jit(_train_step(learner), donate_argnums=0, out_shardings=results)
    return program.trace(learner.shapes, learner.placement.place_batch_shapes(batch))


def _train_step(learner: TrainProgram) -> TrainStep:
    return make_train_step(
        learner.model,
        learner.optimizer,
        deterministic=learner.deterministic,
        spread=learner.spread.gradients,
    )


def compile_loss(setup: Components) -> Callable[[Any, Batch], tuple[jax.Array, jax.Array]]:
    """Return the evaluation step: parameters and rows to summed loss and number of targets.

    It is compiled at its first call, once for a run: evaluation batches have one shape.
    """
    model, placement = setup.learner.model, setup.learner.placement

    def loss(params: Any, batch: Batch) -> tuple[jax.Array, jax.Array]:
        rows = jax.tree.map(lambda array: array[0], batch)
        return model.loss(params, rows, None)

    spread = jax.jit(setup.learner.spread.sums(loss))
    return lambda params, batch: spread(params, placement.place_batch(batch))


def batch_shapes(accum: int, batch: int, time_steps: int) -> Batch:
    """Return the shapes and dtypes of every training batch."""

    def example() -> Batch:
        ids = jnp.zeros((accum, batch, time_steps), jnp.int32)
        return Batch(ids, ids, ids, ids > 0)

    return jax.eval_shape(example)
