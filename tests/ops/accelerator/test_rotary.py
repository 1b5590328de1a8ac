import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chomp.ops.accelerator import rotated_pair

BATCH, TIME, HEADS, HALF, EPS = 2, 7, 3, 4, 1e-5


def plain(z, scale, shift, cos, sin):
    """The definition, pair by pair, for automatic differentiation."""
    square = jnp.square(z).mean(axis=(3, 4), keepdims=True)
    normal = z / jnp.sqrt(square + EPS)
    results = []
    for which in range(2):
        a, b = (normal[:, :, :, i] * scale[which, :, i] + shift[which, :, i] for i in range(2))
        c, s = cos[:, :, None], sin[:, :, None]
        results.append(jnp.concatenate([a * c - b * s, a * s + b * c], -1).swapaxes(1, 2))
    return tuple(results)


@pytest.mark.parametrize("rows", [1, BATCH])
def test_values_and_gradients_are_those_of_the_definition(rows):
    rng = np.random.default_rng(0)
    shapes = [(BATCH, TIME, HEADS, 2, HALF), (2, HEADS, 2, HALF), (2, HEADS, 2, HALF)]
    z, scale, shift = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes)
    angle = jnp.asarray(rng.normal(size=(rows, TIME, HALF)), jnp.float32)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    grads = tuple(
        jnp.asarray(rng.normal(size=(BATCH, HEADS, TIME, 2 * HALF)), jnp.float32) for _ in "qk"
    )
    ours, pull = jax.vjp(jax.jit(lambda *a: rotated_pair(*a, cos, sin, EPS)), z, scale, shift)
    theirs, plain_pull = jax.vjp(jax.jit(lambda *a: plain(*a, cos, sin)), z, scale, shift)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    for a, b in zip(pull(grads), plain_pull(grads), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_bfloat16_stays_and_lengths_are_kept():
    z = jnp.ones((1, 3, 1, 2, 2), jnp.bfloat16)
    one, zero = jnp.ones((2, 1, 2, 2)), jnp.zeros((2, 1, 2, 2))
    q, k = rotated_pair(z, one, zero, jnp.ones((1, 3, 2)), jnp.zeros((1, 3, 2)), EPS)
    assert q.dtype == k.dtype == jnp.bfloat16 and q.shape == (1, 1, 3, 4)
    np.testing.assert_allclose(np.asarray(q, np.float32), 1.0, rtol=1e-2)
