"""What one compiled step needs: memory of a device, messages between them."""

import math
import time
from dataclasses import asdict, dataclass
from typing import Any

import jax

from chomp.config import Config
from chomp.parallel.collectives import Collective, collectives
from chomp.parts import Learner, build_learner
from chomp.programs import batch_shapes, lower_step

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
    """What the step returns in buffers of its own: not the state, which takes the old one's."""

    @property
    def total(self) -> int:
        """All of them."""
        return sum(asdict(self).values())


@dataclass(frozen=True)
class Sizes:
    """Of the program for one number of rows.

    Attributes:
        rows: of a microbatch, on all devices together.
        memory: of one device.
        collectives: of a step.
        seconds: to trace and compile.
    """

    rows: int
    memory: Memory
    collectives: tuple[Collective, ...]
    seconds: float


def measure(config: Config, rows: int) -> tuple[Learner, Sizes]:
    """Compile the step for microbatches of so many rows, with nothing allocated."""
    start = time.perf_counter()
    learner, program = compile_planned(config, rows)
    seconds = time.perf_counter() - start
    text = program.as_text()
    assert text is not None, "there is one for CPUs"
    found = collectives(text, learner.placement.mesh.size)
    memory = memory_of(config, rows, learner, program)
    return learner, Sizes(rows, memory, tuple(found), seconds)


def compile_planned(config: Config, rows: int) -> tuple[Learner, jax.stages.Compiled]:
    """Compile the program that accelerators would run, for this machine's processor."""
    train = config.train.model_copy(update={"batch_size": rows})
    # Kernels for GPUs don't compile for a processor.
    model = config.model.model_copy(update={"kernels": "xla"})
    learner = build_learner(config.model_copy(update={"train": train, "model": model}), "gpu")
    return learner, lower_step(learner, train).compile()


def memory_of(config: Config, rows: int, learner: Learner, program: jax.stages.Compiled) -> Memory:
    """Return what XLA plans for one device."""
    plan, shapes, train = program.memory_analysis(), learner.shapes, config.train
    assert plan is not None, "there is one for CPUs"
    batch = _bytes_each(
        learner.placement.place_batch_shapes(batch_shapes(train.grad_accum, rows, train.seq_len))
    )
    parameters = _bytes_each(shapes.params)
    # Where whole parameters are fetched for a step, so are gradients whole until its end.
    whole = config.parallel.gather == "step"
    gradients = sum(
        FLOAT32 * (leaf.size if whole else _size_each(leaf))
        for leaf in jax.tree.leaves(shapes.params)
    )
    return Memory(
        parameters=parameters,
        optimizer=plan.argument_size_in_bytes - parameters - batch,
        batch=batch,
        gradients=gradients,
        temporaries=plan.temp_size_in_bytes - gradients,
        results=plan.output_size_in_bytes - plan.alias_size_in_bytes,
    )


def _size_each(leaf: Any) -> int:
    return math.prod(leaf.sharding.shard_shape(leaf.shape))


def _bytes_each(tree: Any) -> int:
    return sum(_size_each(leaf) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
