"""Memory and messages of one compiled step."""

import math
import time
from dataclasses import asdict, dataclass
from typing import Any

import jax

from chomp.config import Config
from chomp.hlo.accelerators import Accelerator
from chomp.hlo.collectives import Collective, collectives
from chomp.hlo.compiled import Program
from chomp.trainer.accelerator_program import compile_step_for, memory_of_step_for
from chomp.trainer.program import TrainProgram, batch_shapes, build_program, lower_step

FLOAT32 = 4
"""Bytes of an element of the gradients, whatever the parameters are."""


@dataclass(frozen=True)
class Memory:
    """Bytes of one device while a step runs."""

    parameters: int
    optimizer: int
    batch: int
    gradients: int
    """Float32 sums over the microbatches."""
    temporaries: int
    """Activations and everything else that XLA plans room for."""
    results: int
    """Outputs in buffers of their own: not the state, which takes the old one's."""
    average: int = 0
    """Of the parameters, with `train.ema`."""

    @property
    def total(self) -> int:
        """All of them."""
        return sum(asdict(self).values())


@dataclass(frozen=True)
class Sizes:
    """Memory, messages and compile time of the program for one number of rows.

    Attributes:
        rows: number of them in a microbatch, on all devices together.
        memory: that of one device.
        collectives: those of a step.
        seconds: time to trace and compile.
    """

    rows: int
    memory: Memory
    collectives: tuple[Collective, ...]
    seconds: float


def measure(config: Config, rows: int) -> tuple[TrainProgram, Sizes]:
    """Compile the step for microbatches of so many rows, with nothing allocated."""
    start = time.perf_counter()
    train_program, program = compile_planned(config, rows)
    seconds = time.perf_counter() - start
    text, plan = program.as_text(), program.memory_analysis()
    assert text is not None and plan is not None, "there are both for CPUs"
    found = collectives(text, train_program.sharding.mesh.size)
    return train_program, Sizes(
        rows, memory_of(config, rows, train_program, plan), tuple(found), seconds
    )


def compile_planned(config: Config, rows: int) -> tuple[TrainProgram, jax.stages.Compiled]:
    """Compile the program that accelerators would run, for this machine's processor."""
    config = with_rows(config, rows)
    # Kernels for GPUs don't compile for a processor.
    model = config.model.model_copy(update={"kernels": "xla"})
    train_program = build_program(config.model_copy(update={"model": model}), "gpu")
    return train_program, lower_step(train_program, config.train).compile()


def measure_for(
    config: Config, accelerator: Accelerator, devices: int
) -> tuple[TrainProgram, Sizes, Program]:
    """Compile the step for accelerators that aren't there."""
    train_program, program = compile_step_for(config, accelerator, devices)
    rows = config.train.batch_size
    memory = memory_of(config, rows, train_program, program.memory)
    found = collectives(program.module, devices)
    return train_program, Sizes(rows, memory, tuple(found), program.seconds), program


def measure_memory_for(config: Config, accelerator: Accelerator, devices: int) -> Sizes:
    """Compile the same, and say what memory it needs; its collectives are left out."""
    start = time.perf_counter()
    train_program, plan = memory_of_step_for(config, accelerator, devices)
    rows = config.train.batch_size
    memory = memory_of(config, rows, train_program, plan)
    return Sizes(rows, memory, (), time.perf_counter() - start)


def with_rows(config: Config, rows: int) -> Config:
    """Return the config with microbatches of so many rows."""
    train = config.train.model_copy(update={"batch_size": rows})
    return config.model_copy(update={"train": train})


def memory_of(config: Config, rows: int, train_program: TrainProgram, plan: Any) -> Memory:
    """Return what XLA plans for one device.

    Args:
        config: the program's.
        rows: number of them in a microbatch.
        train_program: the program that was compiled.
        plan: its `memory_analysis()`.
    """
    shapes, train = train_program.shapes, config.train
    batch = _bytes_each(
        train_program.sharding.place_batch_shapes(
            batch_shapes(train.grad_accum, rows, train.seq_len)
        )
    )
    parameters = _bytes_each(shapes.params)
    # Where whole parameters are fetched for a step, so are gradients whole until its end.
    whole = config.parallel.gather == "step"
    gradients = sum(
        FLOAT32 * (leaf.size if whole else _size_each(leaf))
        for leaf in jax.tree.leaves(shapes.params)
    )
    gradients = min(gradients, plan.temp_size_in_bytes)
    return Memory(
        parameters=parameters,
        optimizer=plan.argument_size_in_bytes - parameters - batch,
        batch=batch,
        gradients=gradients,
        temporaries=plan.temp_size_in_bytes - gradients,
        results=plan.output_size_in_bytes - plan.alias_size_in_bytes,
        average=_bytes_each(shapes.average),
    )


def _size_each(leaf: Any) -> int:
    return math.prod(leaf.sharding.shard_shape(leaf.shape))


def _bytes_each(tree: Any) -> int:
    return sum(_size_each(leaf) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
