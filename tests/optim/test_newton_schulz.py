import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chomp.config import MuonConfig
from chomp.optim.newton_schulz import orthogonalize
from chomp.optim.optimizer import iterations_of


def in_double_precision(x: np.ndarray, iterations) -> np.ndarray:
    """The iterations one after the other, on the whole matrix."""
    x = x.astype(np.float64)
    x = x / np.linalg.norm(x)
    for a, b, c in iterations:
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


@pytest.mark.parametrize("coefficients", ["standard", "polar_express"])
@pytest.mark.parametrize("count", [1, 5, 7, 12])
@pytest.mark.parametrize("shape", [(24, 24), (16, 40), (40, 16), (1, 8)])
def test_it_is_what_the_iterations_of_the_whole_matrix_give(coefficients, count, shape):
    iterations = iterations_of(MuonConfig(coefficients=coefficients, ns_steps=count))
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    found = jax.jit(lambda x: orthogonalize(x, iterations))(x)
    np.testing.assert_allclose(found, in_double_precision(x, iterations), atol=2e-4)


@pytest.mark.parametrize("coefficients", ["standard", "polar_express"])
def test_rounding_does_not_grow_where_singular_values_are_zero(coefficients):
    """Fails without new products of rows every few iterations: they end in infinities."""
    iterations = iterations_of(MuonConfig(coefficients=coefficients, ns_steps=20))
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(64, 3)) @ rng.normal(size=(3, 96))).astype(np.float32)
    values = np.linalg.svd(orthogonalize(jnp.asarray(x), iterations), compute_uv=False)
    assert ((values[:3] > 0.6) & (values[:3] < 1.3)).all()
    assert values.max() < 1.3


def test_a_matrix_of_zeros_stays_one():
    iterations = iterations_of(MuonConfig())
    assert not orthogonalize(jnp.zeros((4, 6)), iterations).any()
