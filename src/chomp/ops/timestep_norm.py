"""Normalization over all tokens so far: of the stream, or of each document.

Each group of features is normalized by the mean and variance of all its values from the
document's first token up to the current one (Megalodon, arXiv:2404.08801, section 3.2).

Between features and groups all is products with a matrix of zeros and ones: a loop over the few
features of a group, innermost, is what a CPU's compiler can't vectorize.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

CHUNK = 64


def timestep_norm(
    x: Float[Array, "batch time dim"],
    scale: Float[Array, " dim"],
    bias: Float[Array, " dim"],
    *,
    groups: int,
    eps: float,
    runs: Int[Array, "batch time"] | None = None,
    positions: Int[Array, "batch time"] | None = None,
) -> Float[Array, "batch time dim"]:
    """Return `x` normalized, scaled and shifted; statistics are float32, the dtype is kept.

    Args:
        x: activations.
        scale: factor by feature (the library stores it less one).
        bias: added after scaling.
        groups: number of groups that share statistics.
        eps: added to the variance.
        runs: numbers of the documents, never falling along time; None: one stream.
        positions: each token's position in its document; with `runs` only.
    """
    batch, time, dim = x.shape
    size = dim // groups
    wide, is_in = x.astype(jnp.float32), jnp.repeat(jnp.eye(groups), size, axis=0)
    mean = _product(wide, is_in / size)
    variance = _product(jnp.square(wide - _product(mean, is_in.T)), is_in / size)
    # Sums of small differences to the document's first token don't cancel where a large common
    # offset would.
    if runs is None or positions is None:
        count = jnp.arange(1, time + 1, dtype=jnp.float32)[:, None]
        anchor = jax.lax.stop_gradient(mean[:, :1])
        runs = jnp.zeros((batch, time), jnp.int32)
    else:
        count = (positions + 1).astype(jnp.float32)[..., None]
        start = jnp.arange(time) - positions
        anchor = jax.lax.stop_gradient(jnp.take_along_axis(mean, start[..., None], axis=1))
    shifted = mean - anchor
    moments = jnp.concatenate([shifted, variance + jnp.square(shifted)], axis=-1)
    sums = _prefix_sums(moments, runs)
    offset = sums[..., :groups] / count
    spread = jnp.maximum(sums[..., groups:] / count - jnp.square(offset), 0.0)
    centered = wide - _product(anchor + offset, is_in.T)
    normal = centered * _product(jax.lax.rsqrt(spread + eps), is_in.T)
    return (normal * scale + bias).astype(x.dtype)


def _product(a: Float[Array, "*rows inner"], b: Float[Array, "*_ inner columns"]) -> Array:
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def _prefix_sums(
    values: Float[Array, "batch time columns"], runs: Int[Array, "batch time"]
) -> Float[Array, "batch time columns"]:
    """Return the sums from the start of each run up to each position.

    Inside a chunk a product with the 0/1 matrix [same run and not later], between chunks a scan.
    """
    batch, time, columns = values.shape
    count = -(-time // CHUNK)
    pad = count * CHUNK - time
    cut = jnp.pad(values, ((0, 0), (0, pad), (0, 0))).reshape(batch, count, CHUNK, columns)
    run = jnp.pad(runs, ((0, 0), (0, pad)), mode="edge").reshape(batch, count, CHUNK)
    same = (run[..., :, None] == run[..., None, :]) & jnp.tri(CHUNK, dtype=bool)
    within = _product(same.astype(jnp.float32), cut)
    ends = run[:, :, -1]
    before = jnp.concatenate([jnp.full_like(ends[:, :1], -1), ends[:, :-1]], axis=1)

    def step(carried: Array, item: tuple[Array, Array]) -> tuple[Array, Array]:
        total, kept = item
        return jnp.where(kept[:, None], carried, 0.0) + total, carried

    items = (within[:, :, -1].swapaxes(0, 1), (ends == before).T)
    _, carried = jax.lax.scan(step, jnp.zeros((batch, columns)), items)
    alive = (run == before[..., None])[..., None]
    result = within + jnp.where(alive, carried.swapaxes(0, 1)[:, :, None], 0.0)
    return result.reshape(batch, count * CHUNK, columns)[:, :time]
