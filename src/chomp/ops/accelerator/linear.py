"""A linear layer whose products take operands of one number format, forward and backward."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def linear(
    x: Float[Array, "rows inputs"],
    weight: Float[Array, "outputs inputs"],
    bias: Float[Array, " outputs"] | None = None,
) -> Float[Array, "rows outputs"]:
    """Return x weight^T + bias in the dtype of `x`; products are summed in float32.

    The cotangent has the dtype of `x` too, so in bfloat16 all three products run at its rate, and
    the gradient of the weight is a float32 sum. Differentiating a product with a float32 result
    would give float32 cotangents, and products several times slower.
    """
    result = _linear(x, weight)
    if bias is None:
        return result
    # Added in float32: the bias itself isn't rounded.
    return (result.astype(jnp.float32) + bias.astype(jnp.float32)).astype(x.dtype)


def _product(a: Array, b: Array, inner: tuple[int, int], dtype: jnp.dtype) -> Array:
    precision = jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    return jax.lax.dot_general(
        a,
        b.astype(a.dtype),
        (((inner[0],), (inner[1],)), ((), ())),
        precision=precision,
        preferred_element_type=dtype,
    )


@jax.custom_vjp
def _linear(x: Array, weight: Array) -> Array:
    return _product(x, weight, (1, 1), x.dtype)


def _forward(x: Array, weight: Array) -> tuple[Array, tuple[Array, Array]]:
    return _linear(x, weight), (x, weight)


def _backward(saved: tuple[Array, Array], grad: Array) -> tuple[Array, Array]:
    # XLA would merge products with the same operand, and copy the other operands side by side.
    x, weight = jax.lax.optimization_barrier(saved)
    to_x = _product(grad, weight, (1, 0), x.dtype)
    to_weight = _product(grad, x, (0, 0), jnp.dtype(jnp.float32))
    return to_x, to_weight.astype(weight.dtype)


_linear.defvjp(_forward, _backward)
