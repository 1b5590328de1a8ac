"""The kernels on a real NVIDIA GPU, against float64 and against XLA's program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_reference import REACH, case
from attention_reference import reference as attention_reference
from ema_reference import dense, random_runs, some_coefficients, with_gradients

from chomp.ops import attention_kernel
from chomp.ops.kernels import ema

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(jax.default_backend() != "gpu", reason="no NVIDIA GPU"),
]
CLOSE = {"float32": 1e-4, "bfloat16": 2e-2}
"""Largest error, as a share of the largest value."""


def assert_close(ours, exact, dtype):
    for a, b in zip(ours, exact, strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        # Exactly, the gradients of a query that sees one key are zero.
        assert np.abs(a - b).max() <= CLOSE[dtype] * max(np.abs(b).max(), 0.01)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("order", "dim", "time", "documents"),
    [(16, 640, 300, 7), (16, 640, 300, None), (8, 128, 513, 40), (4, 3, 91, 5), (1, 70, 1, None)],
)
def test_average_and_its_gradients(order, dim, time, documents, dtype):
    rng = np.random.default_rng(time + order)
    c, skip = some_coefficients(rng, dim, order), rng.normal(size=dim).astype(np.float32)
    # Both see the same inputs.
    x, towards = (
        np.asarray(jnp.asarray(rng.normal(size=(2, dim, time)), dtype), np.float64)
        for _ in range(2)
    )
    runs = None if documents is None else random_runs(rng, 2, time, documents)
    starts = None if runs is None else np.diff(runs, axis=1, prepend=-1) != 0

    def kernel(c, x, skip):
        y = ema.ema_kernel(x.astype(dtype).swapaxes(1, 2), c, skip, starts)
        return y.swapaxes(1, 2).astype(jnp.float32)

    narrow = jnp.asarray(x, jnp.float32)
    ours = with_gradients(kernel, towards, c, narrow, skip)
    again = with_gradients(kernel, towards, c, narrow, skip)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: np.asarray(a, np.float64), (c, x, skip))
        exact = with_gradients(
            lambda c, x, skip: dense(x, c, runs) + skip[:, None] * x, towards, *wide
        )
    assert_close(ours, exact, dtype)
    for a, b in zip(ours, again, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("dim", "values", "time", "documents", "padding"),
    [(160, 1280, 300, 4, 20), (128, 256, 513, 1, 0), (20, 70, 300, 200, 7), (4, 6, 1, 1, 0)],
)
def test_attention_and_its_gradients(dim, values, time, documents, padding, dtype):
    q, k, v, start, above, _ = case(time, documents, padding, dim=dim, values=values)
    q, k, v, above = (jnp.asarray(a, dtype) for a in (q, k, v, above))

    @jax.jit
    def measured(q, k, v, above):
        out, back = jax.vjp(lambda q, k, v: attention_kernel(q, k, v, start, REACH), q, k, v)
        return out, *back(above)

    ours, again = measured(q, k, v, above), measured(q, k, v, above)
    assert_close(ours, attention_reference(q, k, v, start, above), dtype)
    for a, b in zip(ours, again, strict=True):
        np.testing.assert_array_equal(a, b)
