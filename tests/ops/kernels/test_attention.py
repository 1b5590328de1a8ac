"""The attention kernels against their definition in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_reference import REACH, case, reference

from chomp.hlo.accelerators import accelerator
from chomp.hlo.compiled import compile_traced
from chomp.hlo.target import devices_of, has_gpu_compiler
from chomp.ops import attention_kernel


@jax.jit
def measured(q, k, v, start, above):
    def run(q, k, v):
        return attention_kernel(q, k, v, start, REACH, True)

    out, back = jax.vjp(run, q, k, v)
    return out, *back(above)


@pytest.mark.parametrize(
    ("time", "documents", "padding"),
    [(1, 1, 0), (37, 5, 0), (300, 1, 0), (300, 4, 20), (300, 200, 7), (300, 1, 300)],
)
def test_outputs_and_gradients(time, documents, padding):
    *arguments, _ = case(time, documents, padding)
    for ours, expected in zip(measured(*arguments), reference(*arguments), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


def test_features_that_are_no_power_of_two():
    """Several pieces of queries and keys, and values that don't fill their splits."""
    *arguments, _ = case(80, 3, 5, dim=50, values=150)
    for ours, expected in zip(measured(*arguments), reference(*arguments), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=2e-5)


def test_another_document_changes_no_bit():
    q, k, v, start, above, runs = case(300, 4, 0, seed=1)
    other = (runs != 1)[:, None, :, None]
    changed = [np.where(other, -1e18, a).astype(np.float32) for a in (q, k, v)]
    # No gradient comes from the other documents, whose scores are infinite now.
    above = np.where(other, 0, above)
    for one, two in zip(
        measured(q, k, v, start, above), measured(*changed, start, above), strict=True
    ):
        np.testing.assert_array_equal(np.where(other, 0, one), np.where(other, 0, two))


def test_bfloat16_operands_are_close():
    *arguments, _ = case(200, 3, 0)
    q, k, v, start, above = arguments
    narrow = [jnp.asarray(a, jnp.bfloat16) for a in (q, k, v)]
    results = measured(*narrow, start, jnp.asarray(above, jnp.bfloat16))
    for ours, expected in zip(results, reference(*arguments), strict=True):
        assert ours.dtype == jnp.bfloat16
        error = np.abs(np.asarray(ours, np.float64) - expected)
        assert error.max() <= 0.05 * np.abs(expected).max()


@pytest.mark.gpu_program
@pytest.mark.skipif(not has_gpu_compiler(), reason="the extra `plan` isn't installed")
@pytest.mark.parametrize("name", ["a100", "h100", "rtx5090"])
@pytest.mark.parametrize(("dtype", "dim", "values"), [("bfloat16", 160, 1280), ("float32", 20, 70)])
def test_compiles_for_a_gpu(name, dtype, dim, values):
    """Also with 99 KiB of shared memory; and no sum by atomics, whose order isn't fixed."""
    mesh = jax.sharding.Mesh(devices_of(accelerator(name), 1), ("x",))
    where = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())

    def shape(*sizes, dtype=dtype):
        return jax.ShapeDtypeStruct(sizes, dtype, sharding=where)

    def both(q, k, v, start, above):
        out, back = jax.vjp(lambda q, k, v: attention_kernel(q, k, v, start, 512), q, k, v)
        return out, back(above)

    q, v = shape(2, 1, 1024, dim), shape(2, 1, 1024, values)
    program = compile_traced(jax.jit(both).trace(q, q, v, shape(2, 1024, dtype="int32"), v))
    assert program.float_atomics == 0
    assert len(program.kernels) == 5
    rate = "bf16" if dtype == "bfloat16" else "kernel"
    assert all(one.flops > 0 and one.rate == rate for one in program.kernels.values())
