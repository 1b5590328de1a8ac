"""Gates against their definition in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chomp.ops import silu, silu_gate


def reference(x, gated, above):
    """Return x sigmoid(x) gated and the gradients of both, for the gradient `above`."""
    x, gated, above = (np.asarray(a, np.float64) for a in (x, gated, above))
    sigmoid = 1 / (1 + np.exp(-x))
    slope = sigmoid * (1 + x * (1 - sigmoid))
    return x * sigmoid * gated, above * gated * slope, above * x * sigmoid


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 2e-6), (jnp.bfloat16, 2e-2)])
def test_outputs_and_gradients(dtype, tolerance):
    rng = np.random.default_rng(0)
    x, gated, above = (jnp.asarray(6 * rng.normal(size=(3, 40)), dtype) for _ in range(3))
    out, back = jax.vjp(silu_gate, x, gated)
    for ours, expected in zip((out, *back(above)), reference(x, gated, above), strict=True):
        assert ours.dtype == dtype
        np.testing.assert_allclose(ours.astype(float), expected, rtol=tolerance, atol=tolerance)
    out, back = jax.vjp(silu, x)
    expected, slope, _ = reference(x, np.ones(x.shape), above)
    np.testing.assert_allclose(out.astype(float), expected, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(back(above)[0].astype(float), slope, rtol=tolerance, atol=tolerance)
