"""TimestepNorm in two passes over the activations forward, and two backward.

What it computes is in `chomp.ops.timestep_norm`. Each token and group is reduced to two moments in
one pass; their sums over the document so far are small products; a second pass normalizes.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from chomp.ops.accelerator.segment_sums import prefix_sums


def timestep_norm(
    x: Float[Array, "batch time dim"],
    scale: Float[Array, " dim"],
    bias: Float[Array, " dim"],
    *,
    groups: int,
    eps: float,
    positions: Int[Array, "batch time"] | None = None,
) -> Float[Array, "batch time dim"]:
    """Return `x` normalized, scaled and shifted; statistics are float32, the dtype is kept.

    Args:
        x: activations.
        scale: factor by feature (the library stores it less one).
        bias: added after scaling.
        groups: number of groups that share statistics.
        eps: added to the variance.
        positions: each token's position in its document; None: one stream.
    """
    batch, time, _ = x.shape
    if positions is None:
        positions = jnp.broadcast_to(jnp.arange(time), (batch, time))
    return _norm(x, scale, bias, positions, groups, eps)


class _Statistics(NamedTuple):
    """Of the document up to each token, by group."""

    anchor: Float[Array, "batch time groups"]
    """Mean of the document's first token: sums of small differences to it don't cancel."""
    offset: Float[Array, "batch time groups"]
    """Mean less the anchor."""
    spread: Float[Array, "batch time groups"]
    """Variance, not below zero."""


def _statistics(x: Float[Array, "batch time dim"], positions: Array, groups: int) -> _Statistics:
    batch, time, dim = x.shape
    grouped = x.astype(jnp.float32).reshape(batch, time, groups, dim // groups)
    # Moments about a value of the group itself: both sums in one pass, and no cancellation.
    first = grouped[..., :1]
    from_first = (grouped - first).mean(axis=-1)
    square = jnp.square(grouped - first).mean(axis=-1)
    # All that is needed of the activations: what follows would read them again for `first`.
    first, from_first, square = jax.lax.optimization_barrier((first[..., 0], from_first, square))
    mean = first + from_first
    variance = square - jnp.square(from_first)
    start = jnp.arange(time) - positions
    anchor = jnp.take_along_axis(mean, start[..., None], axis=1)
    shifted = mean - anchor
    moments = jnp.concatenate([shifted, variance + jnp.square(shifted)], axis=-1)
    sums = prefix_sums(moments, positions) / (positions + 1).astype(jnp.float32)[..., None]
    offset = sums[..., :groups]
    spread = jnp.maximum(sums[..., groups:] - jnp.square(offset), 0.0)
    return _Statistics(anchor, offset, spread)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _norm(x: Array, scale: Array, bias: Array, positions: Array, groups: int, eps: float) -> Array:
    return _norm_forward(x, scale, bias, positions, groups, eps)[0]


def _norm_forward(
    x: Array, scale: Array, bias: Array, positions: Array, groups: int, eps: float
) -> tuple[Array, tuple]:
    statistics = _statistics(x, positions, groups)
    centered, rate = _centered(x, statistics, eps)
    normal = (centered * rate).reshape(x.shape) * scale + bias
    return normal.astype(x.dtype), (x, scale, positions, statistics)


def _centered(x: Array, statistics: _Statistics, eps: float) -> tuple[Array, Array]:
    """Return the groups less their mean, and one over their deviation."""
    groups = statistics.anchor.shape[-1]
    grouped = x.astype(jnp.float32).reshape(*x.shape[:2], groups, -1)
    center = (statistics.anchor + statistics.offset)[..., None]
    return grouped - center, jax.lax.rsqrt(statistics.spread + eps)[..., None]


def _norm_backward(
    groups: int, eps: float, saved: tuple, grad: Array
) -> tuple[Array, Array, Array, None]:
    x, scale, positions, statistics = saved
    centered, rate = _centered(x, statistics, eps)
    wide = grad.astype(jnp.float32)
    to_scale = (wide * (centered * rate).reshape(x.shape)).sum(axis=(0, 1))
    to_bias = wide.sum(axis=(0, 1))
    inner = (wide * scale).reshape(centered.shape)
    # To mean and variance at each token, and from there to what entered them before it.
    narrow = rate[..., 0]
    to_mean = -narrow * inner.sum(axis=-1)
    to_spread = -0.5 * narrow**3 * (inner * centered).sum(axis=-1)
    to_spread = jnp.where(statistics.spread > 0.0, to_spread, 0.0)
    to_sums = jnp.concatenate([to_mean - 2.0 * statistics.offset * to_spread, to_spread], axis=-1)
    to_sums = to_sums / (positions + 1).astype(jnp.float32)[..., None]
    (to_moments,) = jax.linear_transpose(lambda values: prefix_sums(values, positions), to_sums)(
        to_sums
    )
    to_shifted, to_square = to_moments[..., :groups], to_moments[..., groups:]
    width = centered.shape[-1]
    # d/dx of the token's mean less the anchor, and of its mean square about the anchor.
    grouped = x.astype(jnp.float32).reshape(centered.shape)
    through = to_shifted[..., None] + 2.0 * to_square[..., None] * (
        grouped - statistics.anchor[..., None]
    )
    to_x = (inner * rate + through / width).reshape(x.shape)
    return to_x.astype(x.dtype), to_scale.astype(scale.dtype), to_bias.astype(scale.dtype), None


_norm.defvjp(_norm_forward, _norm_backward)
