"""Small programs, compiled for GPUs that aren't there."""

import json
from collections.abc import Callable

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from chomp.hlo.accelerators import ACCELERATORS, accelerator
from chomp.hlo.compiled import Program
from chomp.hlo.figures import figures
from chomp.hlo.roofline import Cluster
from chomp.hlo.target import has_gpu_compiler

pytestmark = [
    pytest.mark.gpu_program,
    pytest.mark.skipif(not has_gpu_compiler(), reason="the extra `plan` isn't installed"),
]
Compile = Callable[..., Program]
GPUS = [one.name for one in ACCELERATORS if one.platform == "gpu"]
ROWS = jax.ShapeDtypeStruct((256, 256), jnp.float32)


def loops(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """One loop of seven turns, and one that ends when the device says so."""
    known, sums = jax.lax.scan(lambda x, _: (jnp.sort(x @ x), x.sum()), x, length=7)
    return jax.lax.while_loop(lambda x: x.sum() < 9, lambda x: x * 2, known), sums


@pytest.mark.parametrize("name", GPUS)
def test_every_gpu(compiled: Compile, name: str) -> None:
    program = compiled(loops, ROWS, name=name)
    runs = program.executions
    assert runs.exact
    assert (runs.loops, runs.unknown_loops, runs.waits) == (2, 1, 3)
    assert program.memory.argument_size_in_bytes == 256 * 256 * 4
    found = figures(program, Cluster(accelerator(name), 1), 1)
    assert found.flops("tf32") == 7 * 2 * 256**3
    assert [line for line in found.to_json()["lines"] if "test_compiled.py" in line]
    json.dumps(found.to_json())


def test_a_second_time_it_is_compiled_again(compiled: Compile) -> None:
    """A program that JAX has in its cache would come without its list of launches."""
    assert all(compiled(lambda x: x + 1, ROWS).executions.exact for _ in range(2))


def scattered(x: jax.Array) -> jax.Array:
    ids = x[:, 0].astype(jnp.int32)
    return jnp.zeros_like(x).at[ids].add(x)


@pytest.mark.parametrize("rows", [256, 4096])  # by compare and swap, and by vectors
def test_atomics(compiled: Compile, rows: int) -> None:
    x = jax.ShapeDtypeStruct((rows, 256), jnp.float32)
    assert compiled(scattered, x).float_atomics == 1
    without = compiled(scattered, x, options={"xla_gpu_deterministic_ops": True})
    assert without.float_atomics == 0
    assert compiled(lambda x: x.sum(0), x).float_atomics == 0


def doubled(x: jax.Array) -> jax.Array:
    def kernel(x_ref, o_ref):
        o_ref[...] = x_ref[...] * 2

    block = pl.BlockSpec((64, 256), lambda i: (i, 0))
    return pl.pallas_call(
        kernel,
        grid=(4,),
        in_specs=[block],
        out_specs=block,
        out_shape=jax.ShapeDtypeStruct(x.shape, x.dtype),
        cost_estimate=pl.CostEstimate(flops=12345, bytes_accessed=1, transcendentals=0),
        compiler_params=triton.CompilerParams(num_warps=4),
        name="doubled",
    )(x)


def test_a_pallas_kernel_counts_what_it_declares(compiled: Compile) -> None:
    """XLA's text has its operands and results only; its FLOPs come from the traced program."""
    turns = 3
    program = compiled(
        lambda x: jax.lax.scan(lambda x, _: (doubled(x), None), x, length=turns), ROWS
    )
    found = figures(program, Cluster(accelerator("h100"), 1), 1)
    assert found.flops("kernel") == turns * 12345
    (kernel,) = (one for one, _ in found.costs if "kernel" in one.flops)
    assert kernel.moved == turns * 2 * 256 * 256 * 4


def multiplied(x: jax.Array) -> jax.Array:
    def kernel(x_ref, o_ref):
        a = x_ref[...]
        o_ref[...] = jax.lax.fori_loop(0, 2, lambda _, sum: sum + jnp.dot(a, a), jnp.zeros_like(a))

    return pl.pallas_call(
        kernel,
        out_shape=jax.ShapeDtypeStruct(x.shape, x.dtype),
        cost_estimate=pl.CostEstimate(flops=12345, bytes_accessed=1, transcendentals=0),
        compiler_params=triton.CompilerParams(num_warps=4),
        name="multiplied",
    )(x)


@pytest.mark.parametrize(("dtype", "rate"), [("bfloat16", "bf16"), ("float32", "kernel")])
def test_a_pallas_kernel_s_products_count_by_their_operands(
    compiled: Compile, dtype: str, rate: str
) -> None:
    """Tensor cores multiply bfloat16, also within a loop of the kernel."""
    program = compiled(multiplied, jax.ShapeDtypeStruct((32, 32), dtype))
    found = figures(program, Cluster(accelerator("h100"), 1), 1)
    assert {name: found.flops(name) for name in ("bf16", "kernel")} == {
        "bf16": 0,
        "kernel": 0,
        rate: 12345,
    }
