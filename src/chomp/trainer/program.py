"""Model and optimizer of a run, and the programs that are compiled of them."""

import functools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from chomp.config import Config, TrainConfig, is_deterministic
from chomp.distributed import FSDP, DataParallel, MeshSharding, ShardedStacking, make_mesh
from chomp.models import LanguageModel, build_model
from chomp.optim import LocalStacking, Optimizer, RateAt, Rates, parameter_groups
from chomp.system.jax_runtime import CPU_ONCE, cpu_compiler_options
from chomp.trainer.parameter_average import average_shapes
from chomp.trainer.step import StepResult, TrainStep, init_state, make_train_step
from chomp.types import Batch, TrainState

T = TypeVar("T")


class CompiledPrograms(NamedTuple):
    """A training step, and what goes with it, as functions that take rates as well."""

    step: Callable[..., StepResult]
    temp_bytes: int | None
    norms: Callable[..., jax.Array] | None


@dataclass
class Compiled:
    """What has been compiled of a program so far: runs that differ in rates or seed share it.

    Attributes:
        options: XLA's settings for all but `init`.
        init_options: those for `init`.
        init: makes the first state, from a seed.
        loss: sums the loss of a batch; compiled at its first call for a shape.
        steps: training steps, by the shape of a batch and whether norms are watched.
    """

    options: dict[str, str | bool] = field(default_factory=dict)
    init_options: dict[str, str | bool] = field(default_factory=dict)
    init: Callable[[jax.Array], TrainState] | None = None
    loss: Callable[[Any, Batch], tuple[jax.Array, jax.Array]] | None = None
    steps: dict[tuple[Any, ...], CompiledPrograms] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainProgram:
    """Model and optimizer with what was decided about them.

    Attributes:
        model: makes parameters and losses.
        optimizer: makes updates.
        groups: a tree like the parameters with each one's `Group`.
        rates: inputs of the step that stay the same in a run.
        sharding: which device holds what.
        data_parallel: has all devices work on a batch.
        shapes: shapes, dtypes and places of the training state, the average of the parameters
            included; nothing is allocated.
        deterministic: dropout is off.
        compiled: what has been compiled of it.
    """

    model: LanguageModel
    optimizer: Optimizer
    groups: Any
    rates: Rates
    sharding: MeshSharding
    data_parallel: DataParallel
    shapes: TrainState
    deterministic: bool
    compiled: Compiled

    def with_rates(self, rates: Rates) -> "TrainProgram":
        """Return the same program, with what is compiled of it, for a run with other rates."""
        return replace(self, rates=rates)

    @property
    def schedules(self) -> dict[str, RateAt]:
        """Learning rate by update count, under its name in the metrics."""
        return self.rates.named(self.optimizer.config.name)

    @property
    def step_shapes(self) -> TrainState:
        """Those of the state that the step takes: it knows nothing of an average."""
        return replace(self.shapes, average=None)

    @property
    def parameters(self) -> int:
        """Number of trainable scalars."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.shapes.params))

    def prepare_init(self) -> None:
        """Compile what `init` runs."""
        if self.compiled.init is None:
            make = functools.partial(init_state, self.model, self.optimizer)
            places = self.sharding.shardings(self.step_shapes)
            seed = jax.ShapeDtypeStruct((), jnp.uint32, sharding=self.sharding.everywhere)
            lowered = jax.jit(make, out_shardings=places).lower(seed)
            self.compiled.init = lowered.compile(self.compiled.init_options)

    def init(self, seed: int = 0) -> TrainState:
        """Make the state before the first step, in one compiled program."""
        self.prepare_init()
        assert self.compiled.init is not None
        return self.compiled.init(jax.device_put(np.uint32(seed), self.sharding.everywhere))

    def _compile_loss(self) -> Callable[[Any, Batch], tuple[jax.Array, jax.Array]]:
        def loss(params: Any, batch: Batch) -> tuple[jax.Array, jax.Array]:
            rows = Batch(*(array[0] for array in batch))
            return self.model.loss(params, rows, None)

        return jax.jit(self.data_parallel.sums(loss), compiler_options=self.compiled.options)

    def summed_loss(self, params: Any, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """Return the summed loss in nats of rows [1, batch, time], and the number of targets.

        It is compiled at its first call, once for a run: evaluation batches have one shape.
        """
        if self.compiled.loss is None:
            self.compiled.loss = self._compile_loss()
        return self.compiled.loss(params, self.sharding.put_batch(batch))


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
    params = jax.eval_shape(model.init, jax.random.PRNGKey(0))
    kinds = model.parameter_kinds(params)
    groups = parameter_groups(
        params,
        kinds,
        muon=muon,
        head=optim.muon.include_head,
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
    on_cpu = (platform or jax.default_backend()) == "cpu"
    stacking = None
    if sharding.mesh.shape[FSDP] > 1:
        stacking = ShardedStacking(sharding)
    elif not on_cpu:
        stacking = LocalStacking()
    optimizer = Optimizer(optim, groups, kinds, train.tokens_per_step, stacking)
    shapes = sharding.place_shapes(
        jax.eval_shape(functools.partial(init_state, model, optimizer, train.seed))
    )
    if train.ema is not None:
        shapes = replace(shapes, average=average_shapes(shapes.params))
    return TrainProgram(
        model,
        optimizer,
        groups,
        Rates.of(optim, train.steps, train.tokens_per_step),
        sharding,
        data_parallel,
        shapes,
        is_deterministic(config),
        Compiled(cpu_compiler_options(config.model.model_dim), CPU_ONCE) if on_cpu else Compiled(),
    )


@dataclass(frozen=True)
class WithRates(Generic[T]):
    """A program with the run's rates, which are on the devices once and for all.

    Attributes:
        program: takes state, batch and rates.
        rates: of the run.
    """

    program: Callable[..., T]
    rates: Rates

    def __call__(self, state: TrainState, batch: Batch) -> T:
        """Run it."""
        return self.program(state, batch, self.rates)


@dataclass(frozen=True)
class CompiledStep:
    """A training step ready to be called.

    Attributes:
        step: state and batch to state and metrics; the state's buffers are donated.
        seconds: time to compile, or to load from the compile cache; 0 where it was there already.
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
        step = _with_rates(_train_step(program), program)
        norms = _with_rates(_norms(program), program) if watch else None
        return CompiledStep(step, 0.0, None, norms)
    start = time.perf_counter()
    shape = (train.grad_accum, train.batch_size, train.seq_len)
    made = program.compiled.steps.get((*shape, watch))
    if made:
        seconds = 0.0
        if with_init:
            program.prepare_init()
    else:
        made = _compile(program, train, with_init=with_init, watch=watch)
        program.compiled.steps[*shape, watch] = made
        seconds = time.perf_counter() - start
    norms = _with_rates(made.norms, program) if made.norms else None
    return CompiledStep(_with_rates(made.step, program), seconds, made.temp_bytes, norms)


def _compile(
    program: TrainProgram, train: TrainConfig, *, with_init: bool, watch: bool
) -> CompiledPrograms:
    lowered = lower_step(program, train)
    norms = jax.jit(_norms(program)).lower(*_inputs(program, train)) if watch else None

    def finish() -> CompiledPrograms:
        options = program.compiled.options
        compiled = lowered.compile(options)
        memory = compiled.memory_analysis()
        scratch = memory.temp_size_in_bytes if memory else None
        return CompiledPrograms(compiled, scratch, norms.compile(options) if norms else None)

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
    results = (program.sharding.shardings(program.step_shapes), None)
    step = jax.jit(_train_step(program), donate_argnums=0, out_shardings=results)
    return step.trace(*_inputs(program, train))


def _inputs(program: TrainProgram, train: TrainConfig) -> tuple[Any, ...]:
    """Return shapes and places of what the step takes: state, batch and rates."""
    batch = batch_shapes(train.grad_accum, train.batch_size, train.seq_len)
    placed = program.sharding.place_batch_shapes(batch)
    scalar = jax.ShapeDtypeStruct((), jnp.float32, sharding=program.sharding.everywhere)
    return program.step_shapes, placed, jax.tree.broadcast(scalar, program.rates)


def _with_rates(
    compiled: Callable[..., T], program: TrainProgram
) -> Callable[[TrainState, Batch], T]:
    return WithRates(compiled, jax.device_put(program.rates, program.sharding.everywhere))


def _norms(program: TrainProgram) -> Callable[..., jax.Array]:
    step = _train_step(program, watch=True)

    def norms(*inputs: Any) -> jax.Array:
        found = step(*inputs)[1].layer_norms
        assert found is not None  # it watches
        return found

    return norms


def _train_step(program: TrainProgram, *, watch: bool = False) -> Callable[..., StepResult]:
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
