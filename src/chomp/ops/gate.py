"""SiLU and its gate, whose backward passes compute the sigmoid anew rather than keep it.

A sigmoid costs less than writing and reading one more array of the activations' size.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@jax.custom_vjp
def silu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return x sigmoid(x), computed in float32, in the dtype of `x`."""
    return _silu(x).astype(x.dtype)


def _silu(x: Array) -> Array:
    wide = x.astype(jnp.float32)
    return wide * jax.nn.sigmoid(wide)


def _slope(x: Array) -> Array:
    wide = x.astype(jnp.float32)
    share = jax.nn.sigmoid(wide)
    return share * (1.0 + wide * (1.0 - share))


def _silu_backward(x: Array, grad: Array) -> tuple[Array]:
    return ((grad * _slope(x)).astype(x.dtype),)


silu.defvjp(lambda x: (silu(x), x), _silu_backward)


@jax.custom_vjp
def silu_gate(gate: Float[Array, "*shape"], x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return silu(gate) x (SwiGLU, Shazeer, arXiv:2002.05202, where both are projections)."""
    return (_silu(gate) * x).astype(x.dtype)


def _gate_backward(saved: tuple[Array, Array], grad: Array) -> tuple[Array, Array]:
    gate, x = saved
    to_gate = grad * x.astype(jnp.float32) * _slope(gate)
    return to_gate.astype(gate.dtype), (grad * _silu(gate)).astype(x.dtype)


silu_gate.defvjp(lambda gate, x: (silu_gate(gate, x), (gate, x)), _gate_backward)
