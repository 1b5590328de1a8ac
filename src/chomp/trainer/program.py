"""Model and optimizer of a run, and the programs that are compiled of them."""

import functools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from chomp.config import Config, TrainConfig, is_deterministic
from chomp.distributed import FSDP, DataParallel, MeshSharding, ShardedStacking, make_mesh
from chomp.models import LanguageModel, build_model
from chomp.optim import LocalStacking, build_optimizer, parameter_groups, schedules
from chomp.trainer.step import TrainStep, init_state, make_train_step
from chomp.types import Batch, TrainState


@dataclass(frozen=True)
class TrainProgram:
    """Model and optimizer with what was decided about them.

    Attributes:
        model: makes parameters and losses.
        optimizer: makes updates.
        groups: a tree like the parameters with each one's `Group`.
        schedules: learning rate by update count, under its name in the metrics.
        sharding: which device holds what.
        data_parallel: has all devices work on a batch.
        shapes: shapes, dtypes and places of the training state; nothing is allocated.
        deterministic: dropout is off.
        seed: of the initial parameters.
    """

    model: LanguageModel
    optimizer: optax.GradientTransformation
    groups: Any
    schedules: dict[str, optax.Schedule]
    sharding: MeshSharding
    data_parallel: DataParallel
    shapes: TrainState
    deterministic: bool
    seed: int

    @property
    def parameters(self) -> int:
        """Number of trainable scalars."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.shapes.params))

    @functools.cached_property
    def _init(self) -> Callable[[], TrainState]:
        make = functools.partial(init_state, self.model, self.optimizer, self.seed)
        places = self.sharding.shardings(self.shapes)
        return jax.jit(make, out_shardings=places).lower().compile()

    def prepare_init(self) -> None:
        """Compile what `init` runs."""
        _ = self._init

    def init(self) -> TrainState:
        """Make the state before the first step, in one compiled program."""
        return self._init()

    @functools.cached_property
    def _summed_loss(self) -> Callable[[Any, Batch], tuple[jax.Array, jax.Array]]:
        def loss(params: Any, batch: Batch) -> tuple[jax.Array, jax.Array]:
            rows = Batch(*(array[0] for array in batch))
            return self.model.loss(params, rows, None)

        return jax.jit(self.data_parallel.sums(loss))

    def summed_loss(self, params: Any, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """Return the summed loss in nats of rows [1, batch, time], and the number of targets.

        It is compiled at its first call, once for a run: evaluation batches have one shape.
        """
        return self._summed_loss(params, self.sharding.put_batch(batch))


def build_program(
    config: Config, platform: str | None = None, devices: Sequence[Any] | None = None
) -> TrainProgram:
    """Build model and optimizer; no array is made.

    Args:
        config: fitted to the tokenizer.
        platform: that the step is for; None: the one that JAX runs on.
        devices: to use; None: all devices of all processes.

    Raises:
        ConfigError: the config's mesh doesn't fit them.
    """
    model = build_model(
        config.model, isolate_documents=config.data.isolate_documents, platform=platform
    )
    optim, train = config.optim, config.train
    muon = optim.name == "muon"
    rates = schedules(optim, train.steps)
    params = jax.eval_shape(model.init, jax.random.PRNGKey(0))
    groups = parameter_groups(
        params,
        model.parameter_kinds(params),
        muon=muon,
        all_2d=optim.muon.allow_all_2d,
        tied_embed=optim.muon.allow_tied_embed and config.model.share_emb,
    )
    sharding = MeshSharding(make_mesh(config.parallel, train.batch_size, devices), model)
    data_parallel = DataParallel(
        sharding,
        by_layer=config.parallel.gather == "layer",
        cast_dtypes=model.cast_dtypes,
        reduce_dtype=np.dtype(config.parallel.reduce_dtype),
    )
    stacking = None
    if sharding.mesh.shape[FSDP] > 1:
        stacking = ShardedStacking(sharding)
    elif (platform or jax.default_backend()) != "cpu":
        stacking = LocalStacking()
    optimizer = build_optimizer(optim, groups, rates, stacking)
    return TrainProgram(
        model,
        optimizer,
        groups,
        rates,
        sharding,
        data_parallel,
        sharding.place_shapes(
            jax.eval_shape(functools.partial(init_state, model, optimizer, train.seed))
        ),
        is_deterministic(config),
        train.seed,
    )


@dataclass(frozen=True)
class CompiledStep:
    """A training step ready to be called.

    Attributes:
        step: state and batch to state and metrics; the state's buffers are donated.
        seconds: time to compile, or to load from the compile cache.
        temp_bytes: scratch memory of the program; None where that isn't known.
        norms: a program of its own, for the norms of each layer in the step to come; donates
            nothing.
    """

    step: TrainStep
    seconds: float
    temp_bytes: int | None
    norms: Callable[[TrainState, Batch], jax.Array] | None = None


def compile_step(
    program: TrainProgram, train: TrainConfig, *, with_init: bool = False, watch: bool = False
) -> CompiledStep:
    """Compile the training step once, for the shapes of every batch.

    Args:
        program: model and optimizer.
        train: the section, with the shape of a batch.
        with_init: compile what `TrainProgram.init` runs as well, while XLA compiles the step,
            which leaves Python to others.
        watch: compile what computes the norms of each layer as well.
    """
    if not train.jit:
        return CompiledStep(_train_step(program), 0.0, None, _norms(program) if watch else None)
    start = time.perf_counter()
    lowered = lower_step(program, train)
    norms = (
        jax.jit(_norms(program)).lower(program.shapes, _placed_batch(program, train))
        if watch
        else None
    )

    def finish() -> CompiledStep:
        compiled = lowered.compile()
        memory = compiled.memory_analysis()
        scratch = memory.temp_size_in_bytes if memory else None
        watched = norms.compile() if norms else None
        return CompiledStep(compiled, time.perf_counter() - start, scratch, watched)

    with ThreadPoolExecutor(1) as threads:
        compiling = threads.submit(finish)
        if with_init:
            program.prepare_init()
        return compiling.result()


def lower_step(program: TrainProgram, train: TrainConfig) -> jax.stages.Lowered:
    """Trace and lower the training step for a run's state and batches."""
    return trace_step(program, train).lower()


def trace_step(program: TrainProgram, train: TrainConfig) -> jax.stages.Traced:
    """Trace the training step for the shapes and places of a run's state and batches."""
    # The next step takes the state from where this one leaves it.
    results = (program.sharding.shardings(program.shapes), None)
    step = jax.jit(_train_step(program), donate_argnums=0, out_shardings=results)
    return step.trace(program.shapes, _placed_batch(program, train))


def _placed_batch(program: TrainProgram, train: TrainConfig) -> Batch:
    batch = batch_shapes(train.grad_accum, train.batch_size, train.seq_len)
    return program.sharding.place_batch_shapes(batch)


def _norms(program: TrainProgram) -> Callable[[TrainState, Batch], jax.Array]:
    step = _train_step(program, watch=True)

    def norms(state: TrainState, batch: Batch) -> jax.Array:
        found = step(state, batch)[1].layer_norms
        assert found is not None  # it watches
        return found

    return norms


def _train_step(program: TrainProgram, *, watch: bool = False) -> TrainStep:
    return make_train_step(
        program.model,
        program.optimizer,
        deterministic=program.deterministic,
        watch=watch,
        spread=program.data_parallel.gradients,
    )


def batch_shapes(accum: int, batch: int, time_steps: int) -> Batch:
    """Return the shapes and dtypes of every training batch."""

    def example() -> Batch:
        ids = jnp.zeros((accum, batch, time_steps), jnp.int32)
        return Batch(ids, ids, ids, ids > 0)

    return jax.eval_shape(example)
