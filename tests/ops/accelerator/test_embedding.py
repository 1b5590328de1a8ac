import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chomp.ops import accelerator

VOCAB, DIM = 23, 5
embedding = jax.jit(accelerator.embedding)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**31), used=st.sampled_from([1, 2, VOCAB]))
def test_rows_and_their_gradient(seed, used):
    """Also where all tokens are the same, across every boundary between chunks."""
    rng = np.random.default_rng(seed)
    weight = jnp.asarray(rng.normal(size=(VOCAB, DIM)), jnp.float32)
    ids = jnp.asarray(rng.choice(VOCAB, used, replace=False)[rng.integers(0, used, (3, 67))])
    grad = rng.normal(size=(3, 67, DIM)).astype(np.float32)
    rows, pull = jax.vjp(lambda w: embedding(w, ids), weight)
    np.testing.assert_array_equal(rows, weight[ids])
    expected = np.zeros((VOCAB, DIM))
    np.add.at(expected, np.asarray(ids).reshape(-1), grad.reshape(-1, DIM).astype(np.float64))
    np.testing.assert_allclose(pull(jnp.asarray(grad))[0], expected, rtol=1e-5, atol=1e-5)


def test_gradient_is_summed_in_float32_and_in_the_weight_s_dtype():
    weight = jnp.zeros((4, 2), jnp.bfloat16)
    ids = jnp.zeros(400, jnp.int32)
    (grad,) = jax.vjp(lambda w: embedding(w, ids), weight)[1](jnp.ones((400, 2), jnp.bfloat16))
    assert grad.dtype == jnp.bfloat16
    np.testing.assert_array_equal(grad, [[400, 400], [0, 0], [0, 0], [0, 0]])


@pytest.mark.parametrize("shape", [(1,), (1, 1), (2, 3, 4)])
def test_any_shape_of_ids(shape):
    weight = jnp.arange(12.0).reshape(6, 2)
    ids = jnp.arange(np.prod(shape)).reshape(shape) % 6
    grad = jnp.ones((*shape, 2))
    (ours,) = jax.vjp(lambda w: embedding(w, ids), weight)[1](grad)
    (plain,) = jax.vjp(lambda w: w[ids], weight)[1](grad)
    np.testing.assert_array_equal(ours, plain)
