"""Normalized, scaled and rotated queries and keys from one projection."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def rotated_pair(
    z: Float[Array, "batch time heads 2 half"],
    scale: Float[Array, "2 heads 2 half"],
    shift: Float[Array, "2 heads 2 half"],
    cos: Float[Array, "rows time half"],
    sin: Float[Array, "rows time half"],
    eps: float,
) -> tuple[Float[Array, "batch heads time dim"], Float[Array, "batch heads time dim"]]:
    """Return queries and keys: z over its root mean square, scaled, shifted, and rotated.

    A head's features are its pairs' first halves, then their second ones; what rotates together
    is a pair. Computed in float32, returned in the dtype of `z`. The backward pass reads the
    gradients and `z` and keeps nothing in float32.

    Args:
        z: the shared projection.
        scale: factors of queries (first) and keys.
        shift: added to them after that.
        cos: of the angle of each pair at each position; rows are 1 or the batch.
        sin: of the same.
        eps: added to the mean square.
    """
    return _rotated(z, scale, shift, cos, sin, eps)


def _normalized(z: Array, eps: float) -> tuple[Array, Array]:
    """Return z normalized, and the factor [batch, time, heads, 1, 1]."""
    wide = z.astype(jnp.float32)
    rate = jax.lax.rsqrt(jnp.square(wide).mean(axis=(-2, -1), keepdims=True) + eps)
    return wide * rate, rate


def _per_head(x: Float[Array, "rows time half"]) -> Float[Array, "rows time 1 half"]:
    return x.astype(jnp.float32)[:, :, None]


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _rotated(
    z: Array, scale: Array, shift: Array, cos: Array, sin: Array, eps: float
) -> tuple[Array, Array]:
    normal, _ = _normalized(z, eps)
    cos, sin = _per_head(cos), _per_head(sin)

    def one(scale: Array, shift: Array) -> Array:
        a, b = jnp.moveaxis(normal * scale + shift, 3, 0)
        turned = jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
        return turned.astype(z.dtype).swapaxes(1, 2)

    return one(scale[0], shift[0]), one(scale[1], shift[1])


def _forward(
    z: Array, scale: Array, shift: Array, cos: Array, sin: Array, eps: float
) -> tuple[tuple[Array, Array], tuple[Array, ...]]:
    return _rotated(z, scale, shift, cos, sin, eps), (z, scale, cos, sin)


def _backward(
    eps: float, saved: tuple[Array, ...], grads: tuple[Array, Array]
) -> tuple[Array, Array, Array, None, None]:
    z, scale, cos, sin = saved

    def unturned(grads: tuple[Array, Array], cos: Array, sin: Array) -> Array:
        """Return the gradients before the rotation [which, batch, time, heads, 2, half]."""
        wide = jnp.stack(grads).swapaxes(2, 3).astype(jnp.float32)
        first, second = jnp.split(wide, 2, axis=-1)
        cos, sin = _per_head(cos), _per_head(sin)
        return jnp.stack([first * cos + second * sin, second * cos - first * sin], axis=-2)

    to_pair = unturned(grads, cos, sin)
    normal, rate = _normalized(z, eps)
    to_normal = (to_pair * scale[:, None, None]).sum(axis=0)
    inner = (to_normal * normal).mean(axis=(-2, -1), keepdims=True)
    to_z = (rate * (to_normal - normal * inner)).astype(z.dtype)
    # Made anew behind a barrier: shared with the above it would be written to memory in float32.
    z, grads, cos, sin = jax.lax.optimization_barrier((z, grads, cos, sin))
    to_pair = unturned(grads, cos, sin)
    to_scale = (to_pair * _normalized(z, eps)[0]).sum(axis=(1, 2))
    return to_z, to_scale, to_pair.sum(axis=(1, 2)), None, None


_rotated.defvjp(_forward, _backward)
