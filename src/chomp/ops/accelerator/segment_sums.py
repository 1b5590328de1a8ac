"""Sums over the part of a segment up to each position, as products."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

CHUNK = 64


def prefix_sums(
    values: Float[Array, "batch time columns"], positions: Int[Array, "batch time"]
) -> Float[Array, "batch time columns"]:
    """Return the sums from the start of each segment up to each position.

    Within chunks and between them products with 0/1 matrices, in float32: a NaN in a chunk is in
    all sums of that chunk.

    Args:
        values: to sum along time.
        positions: each one's place in its segment, 0 where one begins.
    """
    batch, time, columns = values.shape
    chunk = min(CHUNK, time)
    count = -(-time // chunk)
    pad = count * chunk - time
    cut = jnp.pad(values, ((0, 0), (0, pad), (0, 0))).reshape(batch, count, chunk, columns)
    at = jnp.pad(positions, ((0, 0), (0, pad))).reshape(batch, count, chunk)
    place = jnp.arange(chunk)
    start = place - at  # of the segment, counted from the chunk's start
    same = (place >= start[..., None]) & (place <= place[:, None])
    product = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
    within = product("bcij,bcjk->bcik", same.astype(jnp.float32), cut)
    number = jnp.arange(count)
    begin = number * chunk + start[..., 0]
    reaches = begin[..., None] < (number + 1) * chunk  # the chunk's end is in this segment
    before: Bool[Array, "batch count count"] = reaches & (number < number[:, None])
    carried = product("bcd,bdk->bck", before.astype(jnp.float32), within[:, :, -1])
    result = within + jnp.where((start < 0)[..., None], carried[:, :, None], 0.0)
    return result.reshape(batch, count * chunk, columns)[:, :time]
