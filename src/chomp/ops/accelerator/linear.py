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
    return _linear(x, weight, bias)


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
def _linear(x: Array, weight: Array, bias: Array | None) -> Array:
    result = _product(x, weight, (1, 1), x.dtype)
    # In one dtype: cuBLAS then adds the bias to its float32 sums, before it rounds them.
    return result if bias is None else result + bias.astype(x.dtype)


def _forward(x: Array, weight: Array, bias: Array | None) -> tuple[Array, tuple]:
    return _linear(x, weight, bias), (x, weight, bias)


def _backward(saved: tuple, grad: Array) -> tuple[Array, Array, Array | None]:
    # XLA would merge products with the same operand, and copy the other operands side by side.
    x, weight, bias = jax.lax.optimization_barrier(saved)
    to_x = _product(grad, weight, (1, 0), x.dtype)
    to_weight = _product(grad, x, (0, 0), jnp.dtype(jnp.float32)).astype(weight.dtype)
    if bias is None:
        return to_x, to_weight, None
    return to_x, to_weight, grad.astype(jnp.float32).sum(axis=0).astype(bias.dtype)


_linear.defvjp(_forward, _backward)
