"""Causal attention in which each query sees the keys from a first position of its own up to itself.

That is all that chunks and documents ask for: a query sees its own chunk of its own document, and
one number per query says where that begins. No mask is ever stored. Queries and keys are cut into
blocks, and only the pairs of blocks that hold a visible pair are computed, with a running softmax;
the backward pass computes the probabilities anew from the saved log-sum-exp (FlashAttention, Dao
et al., arXiv:2205.14135). There is no temperature: Megalodon normalizes queries and keys instead.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

BLOCK = 128
# Below every score, but finite: a difference of two infinities is not a number.
LOWEST = -1e30
SAVED = "attention"
"""Name of output and log-sum-exp, for the policy of a surrounding `jax.checkpoint`."""


def span_attention(
    q: Float[Array, "batch heads time dim"],
    k: Float[Array, "batch heads time dim"],
    v: Float[Array, "batch heads time values"],
    start: Int[Array, "batch time"],
) -> Float[Array, "batch heads time values"]:
    """Return softmax(q k) v over the keys at `start[t] <= s <= t` of each query t.

    Scores, softmax and sums are float32; the operands of the products keep their dtype.

    Args:
        q: queries.
        k: keys.
        v: values.
        start: first position that each query sees; a query with `start > t` sees nothing and
            gives zeros.
    """
    time = q.shape[2]
    block = min(BLOCK, time)
    pad = -time % block
    widths = ((0, 0), (0, 0), (0, pad), (0, 0))
    q, k, v = jnp.pad(q, widths), jnp.pad(k, widths), jnp.pad(v, widths)
    start = jnp.pad(start, ((0, 0), (0, pad)), constant_values=time + pad)
    out: Array = _attention(q, k, v, start, block)
    return out[:, :, :time]


def _product(a: Array, b: Array, inner: tuple[int, int]) -> Float[Array, "batch heads _ _"]:
    """Multiply over one axis of each, in float32, for each row and head."""
    precision = lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    return lax.dot_general(
        a,
        b,
        (((inner[0],), (inner[1],)), ((0, 1), (0, 1))),
        precision=precision,
        preferred_element_type=jnp.float32,
    )


def _at(x: Array, number: Array, block: int) -> Array:
    """Return a block along time, the last axis but one."""
    return lax.dynamic_slice_in_dim(x, number * block, block, axis=2)


def _add_at(x: Array, number: Array, block: int, added: Array) -> Array:
    return lax.dynamic_update_slice_in_dim(x, _at(x, number, block) + added, number * block, axis=2)


def _scores(q: Array, k: Array, start: Array, i: Array, j: Array) -> Array:
    """Return the scores of query block i and key block j, -inf where nothing is seen."""
    block = q.shape[2]
    positions = jnp.arange(block)
    query, key = i * block + positions[:, None], j * block + positions
    seen = (key >= start[..., None]) & (key <= query)
    return jnp.where(seen[:, None], _product(q, k, (3, 3)), -jnp.inf)


def _first(start: Array, i: Array) -> Array:
    """Return the first key block that any query of a block sees; at most its own."""
    return jnp.minimum(start.min() // start.shape[1], i)


def _starts(start: Array, block: int) -> Array:
    return start.reshape(start.shape[0], -1, block).swapaxes(0, 1)


def _blocks_forward(
    q: Array, k: Array, v: Array, start: Array, block: int
) -> tuple[Array, Float[Array, "batch heads time"]]:
    batch, heads, time, _ = q.shape

    def query_block(_: None, item: tuple[Array, Array]) -> tuple[None, tuple[Array, Array]]:
        i, begins = item
        queries = _at(q, i, block)

        def fold(j: Array, carried: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            largest, total, mixed = carried
            scores = _scores(queries, _at(k, j, block), begins, i, j)
            highest = jnp.maximum(largest, scores.max(axis=-1))
            weights = jnp.exp(scores - highest[..., None])
            shrink = jnp.exp(largest - highest)
            new = _product(weights.astype(v.dtype), _at(v, j, block), (3, 2))
            total = total * shrink + weights.sum(axis=-1)
            return highest, total, mixed * shrink[..., None] + new

        lowest = jnp.full((batch, heads, block), LOWEST)
        nothing = jnp.zeros((batch, heads, block, v.shape[-1]))
        start = (lowest, jnp.zeros_like(lowest), nothing)
        largest, total, mixed = lax.fori_loop(_first(begins, i), i + 1, fold, start)
        sees = total > 0
        safe = jnp.where(sees, total, 1.0)
        # Infinite where nothing is seen: the backward pass then finds probabilities of zero.
        log_sum = jnp.where(sees, largest + jnp.log(safe), jnp.inf)
        return None, ((mixed / safe[..., None]).astype(q.dtype), log_sum)

    items = (jnp.arange(time // block), _starts(start, block))
    _, (out, log_sum) = lax.scan(query_block, None, items)
    out = jnp.moveaxis(out, 0, 2).reshape(batch, heads, time, -1)
    return out, jnp.moveaxis(log_sum, 0, 2).reshape(batch, heads, time)


def _blocks_backward(
    saved: tuple[Array, ...], grad: Array, block: int
) -> tuple[Array, Array, Array]:
    q, k, v, start, out, log_sum = saved
    time = q.shape[2]
    inner = (grad.astype(jnp.float32) * out.astype(jnp.float32)).sum(axis=-1)

    def query_block(
        totals: tuple[Array, Array], item: tuple[Array, ...]
    ) -> tuple[tuple[Array, Array], Array]:
        i, begins = item
        queries, above = _at(q, i, block), _at(grad, i, block)
        log_sums = lax.dynamic_slice_in_dim(log_sum, i * block, block, axis=2)[..., None]
        inners = lax.dynamic_slice_in_dim(inner, i * block, block, axis=2)[..., None]

        def fold(j: Array, carried: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            to_queries, to_k, to_v = carried
            keys, values = _at(k, j, block), _at(v, j, block)
            weights = jnp.exp(_scores(queries, keys, begins, i, j) - log_sums)
            to_weights = _product(above, values, (3, 3))
            # Chosen, not multiplied by a zero weight, which an infinity would survive.
            to_scores = jnp.where(weights > 0, weights * (to_weights - inners), 0.0)
            to_scores, weights = to_scores.astype(q.dtype), weights.astype(q.dtype)
            return (
                to_queries + _product(to_scores, keys, (3, 2)),
                _add_at(to_k, j, block, _product(to_scores, queries, (2, 2))),
                _add_at(to_v, j, block, _product(weights, above, (2, 2))),
            )

        nothing = jnp.zeros(queries.shape)
        to_queries, to_k, to_v = lax.fori_loop(_first(begins, i), i + 1, fold, (nothing, *totals))
        return (to_k, to_v), to_queries

    items = (jnp.arange(time // block), _starts(start, block))
    zeros = (jnp.zeros(k.shape), jnp.zeros(v.shape))
    (to_k, to_v), to_q = lax.scan(query_block, zeros, items)
    to_q = jnp.moveaxis(to_q, 0, 2).reshape(q.shape)
    return to_q.astype(q.dtype), to_k.astype(k.dtype), to_v.astype(v.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _attention(q: Array, k: Array, v: Array, start: Array, block: int) -> Array:
    return _attention_forward(q, k, v, start, block)[0]


def _attention_forward(
    q: Array, k: Array, v: Array, start: Array, block: int
) -> tuple[Array, tuple[Array, ...]]:
    out, log_sum = checkpoint_name(_blocks_forward(q, k, v, start, block), SAVED)
    return out, (q, k, v, start, out, log_sum)


def _attention_backward(
    block: int, saved: tuple[Array, ...], grad: Array
) -> tuple[Array, Array, Array, None]:
    return *_blocks_backward(saved, grad, block), None


_attention.defvjp(_attention_forward, _attention_backward)
