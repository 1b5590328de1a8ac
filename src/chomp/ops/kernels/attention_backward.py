"""Derivatives of the attention kernel: pairs of blocks once, then products with them."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array

from chomp.ops.kernels.blocks import (
    Sizes,
    first_keys,
    kernel_call,
    last_queries,
    pieces_of,
    product,
    rows_of,
    scores_of,
    whole,
)


def attention_gradients(
    saved: tuple[Array, ...], grad: Array, sizes: Sizes, interpret: bool
) -> tuple[Array, Array, Array]:
    """Return the derivatives with respect to queries, keys and values.

    Args:
        saved: queries, keys, values, first keys, result and logarithms of sums of the forward pass.
        grad: derivative with respect to the result.
        sizes: of the blocks.
        interpret: run as ordinary operations.
    """
    q, k, v, start, out, log_sum = saved
    inner = (grad.astype(jnp.float32) * out.astype(jnp.float32)).sum(axis=-1)
    grad = grad.astype(v.dtype)
    pairs = _pairs((q, k, v, start, log_sum), inner, grad, sizes, interpret)
    weights, to_scores = pairs
    to_q = _to_queries(to_scores, k, start, sizes, interpret)
    to_k = _to_keys(to_scores, q, start, q.shape[-1], "attention_to_keys", sizes, interpret)
    to_v = _to_keys(weights, grad, start, sizes.values, "attention_to_values", sizes, interpret)
    return to_q, to_k, to_v


def _pairs(saved: tuple, inner: Array, grad: Array, sizes: Sizes, interpret: bool) -> Any:
    """Return probabilities and derivatives of scores: [rows, blocks, slots, queries, keys].

    The last slot of a block of queries is the last block of keys that it sees. Blocks that are not
    seen are left as they were in memory.
    """
    q, k, v, start, log_sum = saved
    rows, time, dim = q.shape
    pieces, values = pieces_of(dim), v.shape[-1]
    slots, each = sizes.slots(time), sizes.queries // sizes.keys

    def kernel(first_ref, start_ref, log_ref, inner_ref, *refs):
        q_ref, k_ref, v_ref, grad_ref, weights_ref, to_scores_ref = refs
        i = pl.program_id(1)
        j = (i + 1) * each - slots + pl.program_id(2)

        @pl.when(j >= first_ref[i])
        def _() -> None:
            queries = [q_ref[:, piece] for piece in pieces]
            keys = [rows_of(k_ref, j, sizes.keys, piece) for piece in pieces]
            scores, seen = scores_of(queries, keys, start_ref[...], i, j)
            weights = jnp.where(seen, jnp.exp2(scores - log_ref[...][:, None]), 0.0)

            def fold(part: Array, total: Array) -> Array:
                features = pl.ds(part * sizes.inner, sizes.inner)
                values = v_ref[pl.ds(j * sizes.keys, sizes.keys), features]
                return total + product(grad_ref[:, features], values, (1, 1))

            nothing = jnp.zeros((sizes.queries, sizes.keys), jnp.float32)
            to_weights = lax.fori_loop(0, values // sizes.inner, fold, nothing)
            to_scores = weights * (to_weights - inner_ref[...][:, None])
            # Chosen, not multiplied by a zero weight, which an infinity would survive.
            to_scores = jnp.where(weights > 0, to_scores, 0.0)
            weights_ref[...] = weights.astype(weights_ref.dtype)
            to_scores_ref[...] = to_scores.astype(to_scores_ref.dtype)

    firsts = first_keys(start, sizes)
    some = pl.BlockSpec((None, sizes.queries), lambda row, i, slot: (row, i))

    def block(features: int) -> pl.BlockSpec:
        return pl.BlockSpec((None, sizes.queries, features), lambda row, i, slot: (row, i, 0))

    tile = pl.BlockSpec(
        (None, None, None, sizes.queries, sizes.keys), lambda row, i, slot: (row, i, slot, 0, 0)
    )
    shape = (rows, time // sizes.queries, slots, sizes.queries, sizes.keys)
    return kernel_call(
        kernel,
        "attention_pairs",
        (rows, time // sizes.queries, slots),
        rows * (dim + values),
        warps=4,
        stages=2,
        sizes=sizes,
        tokens=time,
        in_specs=[
            whole(firsts),
            some,
            some,
            some,
            block(dim),
            whole(k),
            whole(v),
            block(values),
        ],
        out_specs=(tile, tile),
        out_shape=(jax.ShapeDtypeStruct(shape, v.dtype), jax.ShapeDtypeStruct(shape, q.dtype)),
        interpret=interpret,
    )(firsts, start, log_sum, inner, q, k, v, grad)


def _to_queries(pairs: Array, k: Array, start: Array, sizes: Sizes, interpret: bool) -> Array:
    """Return the derivative with respect to queries: products of blocks of pairs with keys."""
    rows, time, dim = k.shape
    pieces, slots, each = pieces_of(dim), pairs.shape[2], sizes.queries // sizes.keys

    def kernel(first_ref, pairs_ref, k_ref, out_ref):
        i = pl.program_id(1)
        end = (i + 1) * each

        def fold(j: Array, totals: tuple) -> tuple:
            pair = pairs_ref[j - end + slots]
            return tuple(
                total + product(pair, rows_of(k_ref, j, sizes.keys, piece), (1, 0))
                for total, piece in zip(totals, pieces, strict=True)
            )

        nothing = tuple(jnp.zeros((sizes.queries, p.stop - p.start), jnp.float32) for p in pieces)
        totals = lax.fori_loop(first_ref[i], end, fold, nothing)
        for total, piece in zip(totals, pieces, strict=True):
            out_ref[:, piece] = total.astype(out_ref.dtype)

    firsts = first_keys(start, sizes)
    return kernel_call(
        kernel,
        "attention_to_queries",
        (rows, time // sizes.queries),
        rows * dim,
        warps=4,
        stages=3,
        sizes=sizes,
        tokens=time,
        in_specs=[
            whole(firsts),
            pl.BlockSpec((None, None, *pairs.shape[2:]), lambda row, i: (row, i, 0, 0, 0)),
            whole(k),
        ],
        out_specs=pl.BlockSpec((None, sizes.queries, dim), lambda row, i: (row, i, 0)),
        out_shape=jax.ShapeDtypeStruct(k.shape, k.dtype),
        interpret=interpret,
    )(firsts, pairs, k)


def _to_keys(
    pairs: Array, x: Array, start: Array, width: int, name: str, sizes: Sizes, interpret: bool
) -> Array:
    """Return products of transposed blocks of pairs with what queries have, for each key."""
    rows, time, _ = x.shape
    pieces, slots, each = pieces_of(width), pairs.shape[2], sizes.queries // sizes.keys

    def kernel(first_ref, last_ref, pairs_ref, x_ref, out_ref):
        j = pl.program_id(1)

        def fold(i: Array, totals: tuple) -> tuple:
            slot = j - (i + 1) * each + slots
            # Documents may be so that a block between others sees nothing of these keys.
            written = jnp.broadcast_to(first_ref[i] <= j, (sizes.queries, sizes.keys))
            pair = triton.load(pairs_ref.at[i, slot], mask=written, other=0.0)
            return tuple(
                total + product(pair, rows_of(x_ref, i, sizes.queries, piece), (0, 0))
                for total, piece in zip(totals, pieces, strict=True)
            )

        nothing = tuple(jnp.zeros((sizes.keys, p.stop - p.start), jnp.float32) for p in pieces)
        totals = lax.fori_loop(lax.div(j, jnp.int32(each)), last_ref[j] + 1, fold, nothing)
        for total, piece in zip(totals, pieces, strict=True):
            out_ref[:, piece] = total.astype(out_ref.dtype)

    firsts = first_keys(start, sizes)
    lasts = last_queries(firsts, sizes)
    return kernel_call(
        kernel,
        name,
        (rows, time // sizes.keys, x.shape[-1] // width),
        rows * x.shape[-1],
        warps=4,
        stages=2,
        sizes=sizes,
        tokens=time,
        in_specs=[
            whole(firsts),
            whole(lasts),
            pl.BlockSpec((None, *pairs.shape[1:]), lambda row, j, part: (row, 0, 0, 0, 0)),
            pl.BlockSpec((None, time, width), lambda row, j, part: (row, 0, part)),
        ],
        out_specs=pl.BlockSpec((None, sizes.keys, width), lambda row, j, part: (row, j, part)),
        out_shape=jax.ShapeDtypeStruct(x.shape, x.dtype),
        interpret=interpret,
    )(firsts, lasts, pairs, x)
