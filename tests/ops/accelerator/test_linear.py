import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chomp.ops.accelerator import linear


def arrays(dtype: jnp.dtype, rows: int = 24, inputs: int = 10, outputs: int = 6):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(rows, inputs)), dtype)
    weight, bias = rng.normal(size=(outputs, inputs)), rng.normal(size=outputs)
    grad = jnp.asarray(rng.normal(size=(rows, outputs)), dtype)
    return x, jnp.asarray(weight, jnp.float32), jnp.asarray(bias, jnp.float32), grad


@pytest.mark.parametrize("biased", [False, True])
def test_result_and_gradients_in_float32(biased):
    x, weight, bias, grad = arrays(jnp.float32)
    given = (x, weight, bias) if biased else (x, weight)
    result, pull = jax.vjp(linear, *given)
    expected, expected_pull = jax.vjp(lambda x, w, b=0.0: x @ w.T + b, *given)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(pull(grad), expected_pull(grad), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_bfloat16_products_have_bfloat16_operands_and_float32_sums():
    x, weight, bias, grad = arrays(jnp.bfloat16)
    result, pull = jax.vjp(linear, x, weight, bias)
    to_x, to_weight, to_bias = pull(grad)
    assert result.dtype == to_x.dtype == jnp.bfloat16
    assert to_weight.dtype == to_bias.dtype == jnp.float32
    text = jax.jit(lambda *a: jax.vjp(linear, *a[:3])[1](a[3])).lower(x, weight, bias, grad)
    products = [line for line in text.as_text().splitlines() if "dot_general" in line]
    assert len(products) == 2, "the forward product isn't needed for the gradients"
    assert all("tensor<24x" in line and "bf16" in line for line in products)
    assert not any("f32>, tensor" in line.split("->")[0] for line in products)
    # The gradient of the weight keeps what a sum rounded to bfloat16 would lose.
    exact = np.asarray(grad, np.float64).T @ np.asarray(x, np.float64)
    np.testing.assert_allclose(to_weight, exact, rtol=1e-5, atol=1e-5)


def test_weights_of_bfloat16_get_gradients_of_bfloat16():
    x, weight, _, grad = arrays(jnp.bfloat16)
    _, pull = jax.vjp(linear, x, weight.astype(jnp.bfloat16))
    assert pull(grad)[1].dtype == jnp.bfloat16
