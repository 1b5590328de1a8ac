"""Attention over spans as batched products of chunks with windows of keys."""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

# Below every score, but finite: a difference of two infinities is not a number.
LOWEST = -1e30


def window_attention(
    q: Float[Array, "batch heads time dim"],
    k: Float[Array, "batch heads time dim"],
    v: Float[Array, "batch heads time values"],
    start: Int[Array, "batch time"],
    chunk: int,
    chunks_before: int,
) -> Float[Array, "batch heads time values"]:
    """Return what `span_attention` does, from few large products without any loop.

    For accelerators: there a loop whose length depends on the data waits for the host in each turn,
    and products of blocks are too small. It computes the scores of each chunk of queries with a
    whole window of keys, seen or not, and keeps the weights for the backward pass.

    Args:
        q: queries.
        k: keys.
        v: values.
        start: first position that each query sees, none before its window.
        chunk: queries that share a window.
        chunks_before: the window is their own chunk and so many before it.
    """
    time = q.shape[2]
    pad = -time % chunk
    count = (time + pad) // chunk
    begin = jnp.arange(count)[:, None] * chunk
    query = begin + jnp.arange(chunk)
    key = begin + jnp.arange(-chunks_before * chunk, chunk)
    first = jnp.pad(start, ((0, 0), (0, pad)), constant_values=time + pad).reshape(-1, count, chunk)
    seen = (key[:, None] >= first[..., None]) & (key[:, None] <= query[..., None])
    cut = functools.partial(_chunks, chunk=chunk)
    out: Array = _attention(cut(q), cut(k), cut(v), seen[:, None], chunks_before)
    return out.reshape(*q.shape[:2], time + pad, -1)[:, :, :time]


def _chunks(x: Array, chunk: int) -> Float[Array, "batch heads count chunk _"]:
    pad = -x.shape[2] % chunk
    padded = jnp.pad(x, ((0, 0), (0, 0), (0, pad), (0, 0)))
    return padded.reshape(*x.shape[:2], -1, chunk, x.shape[-1])


def _windows(x: Array, before: int) -> Float[Array, "batch heads count window _"]:
    """Return each chunk with those before it, zeros before the first."""
    count = x.shape[2]
    padded = jnp.pad(x, ((0, 0), (0, 0), (before, 0), (0, 0), (0, 0)))
    return jnp.concatenate([padded[:, :, i : i + count] for i in range(before + 1)], axis=3)


def _sum_windows(x: Array, before: int, dtype: jnp.dtype) -> Array:
    """Add up what windows have for each chunk: the transpose of `_windows`."""
    chunk = x.shape[3] // (before + 1)
    count = x.shape[2]
    total = jnp.zeros(())
    for i in range(before + 1):
        part = x[:, :, before - i :, i * chunk : (i + 1) * chunk].astype(jnp.float32)
        total += jnp.pad(part, ((0, 0), (0, 0), (0, count - part.shape[2]), (0, 0), (0, 0)))
    return total.astype(dtype)


def _product(a: Array, b: Array, inner: tuple[int, int], dtype: jnp.dtype) -> Array:
    """Multiply over one axis of each for each batch, head and chunk, summing in float32."""
    precision = lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    each = ((0, 1, 2), (0, 1, 2))
    return lax.dot_general(
        a, b, (((inner[0],), (inner[1],)), each), precision=precision, preferred_element_type=dtype
    )


_FLOAT32 = jnp.dtype(jnp.float32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _attention(q: Array, k: Array, v: Array, seen: Bool[Array, "..."], before: int) -> Array:
    return _forward(q, k, v, seen, before)[0]


def _forward(
    q: Array, k: Array, v: Array, seen: Array, before: int
) -> tuple[Array, tuple[Array, ...]]:
    scores = _product(q, _windows(k, before), (4, 4), _FLOAT32)
    weights = jax.nn.softmax(jnp.where(seen, scores, LOWEST), axis=-1)
    # Zeros where a query sees nothing at all, which the softmax makes equal weights.
    weights = jnp.where(seen, weights, 0.0).astype(v.dtype)
    # The backward pass reads these, rather than scores in float32 of which it makes them again.
    weights = lax.optimization_barrier(weights)
    out = _product(weights, _windows(v, before), (4, 3), v.dtype)
    return out, (q, k, v, weights)


def _backward(before: int, saved: tuple[Array, ...], grad: Array) -> tuple[Array | None, ...]:
    q, k, v, weights = saved
    keys = _windows(k, before)
    to_weights = _product(grad, _windows(v, before), (4, 4), v.dtype).astype(jnp.float32)
    wide = weights.astype(jnp.float32)
    inner = (wide * to_weights).sum(axis=-1, keepdims=True)
    # Chosen, not multiplied by a zero weight, which an infinity would survive.
    to_scores = jnp.where(wide > 0, wide * (to_weights - inner), 0.0).astype(q.dtype)
    to_q = _product(to_scores, keys, (4, 3), q.dtype)
    to_k = _sum_windows(_product(to_scores, q, (3, 3), q.dtype), before, k.dtype)
    to_v = _sum_windows(_product(weights, grad, (3, 3), v.dtype), before, v.dtype)
    return to_q, to_k, to_v, None


_attention.defvjp(_forward, _backward)
