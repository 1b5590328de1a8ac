"""Attention over spans as GPU kernels: no score of an unseen block is computed, none of it is kept.

What `chomp.ops.span_attention` computes. Written in Pallas for its Triton lowering: for NVIDIA
GPUs. The forward pass is FlashAttention-2's (Dao, arXiv:2307.08691): a program for a block of
queries and some of the values' features, with a running softmax. The backward pass computes each
block's probabilities and derivatives of scores once and stores them, in the dtype of the operands;
the three derivatives are then products with these blocks. Every sum has one order: no atomics.

Bfloat16 operands are multiplied on tensor cores and summed in float32.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array, Float, Int

from chomp.ops.span_attention import LOWEST, SAVED

SMALLEST = 16
"""Of the sizes of products on tensor cores."""
LOG2_E = math.log2(math.e)


class _Sizes(NamedTuple):
    """Of the blocks: of a power of two each, `queries` a multiple of `keys`."""

    queries: int
    keys: int
    values: int
    inner: int
    """Features that one product of gradients with values sums over."""
    reach: int
    """Keys that a query sees at most."""

    def slots(self, time: int) -> int:
        """Return how many blocks of keys a block of queries may see."""
        return min(-(-(self.queries + self.reach - 1) // self.keys), time // self.keys)


def attention_kernel(
    q: Float[Array, "batch heads time dim"],
    k: Float[Array, "batch heads time dim"],
    v: Float[Array, "batch heads time values"],
    start: Int[Array, "batch time"],
    reach: int | None = None,
    interpret: bool = False,
) -> Float[Array, "batch heads time values"]:
    """Return softmax(q k) v over the keys at `start[t] <= s <= t` of each query t.

    Scores, softmax and sums are float32; the operands of the products keep their dtype.

    Args:
        q: queries.
        k: keys.
        v: values.
        start: first position that each query sees; a query with `start > t` sees nothing and
            gives zeros.
        reach: keys that a query sees at most: it does not see those before; None: any number.
        interpret: run as ordinary operations: on any platform, and slowly.
    """
    batch, heads, time, _ = q.shape
    sizes = _sizes(q.dtype, v.shape[-1], reach or time)
    pad = -time % sizes.queries

    def padded(x: Array, features: int) -> Array:
        x = jnp.pad(x, ((0, 0), (0, 0), (0, pad), (0, -x.shape[-1] % features)))
        return x.reshape(batch * heads, time + pad, -1)

    start = jnp.maximum(start, jnp.arange(time) - sizes.reach + 1)
    start = jnp.pad(start, ((0, 0), (0, pad)), constant_values=time + pad)
    start = jnp.repeat(start.astype(jnp.int32), heads, axis=0)
    q, k, values = padded(q, SMALLEST), padded(k, SMALLEST), padded(v, sizes.values)
    out: Array = _attention(q, k, values, start, sizes, interpret)
    return out.reshape(batch, heads, time + pad, -1)[:, :, :time, : v.shape[-1]]


def _sizes(dtype: Any, values: int, reach: int) -> _Sizes:
    wide = jnp.dtype(dtype).itemsize > 2
    most = 64 if wide else 256
    values = min(most, max(SMALLEST, pl.next_power_of_2(values)))
    block = 32 if wide else 64
    return _Sizes(block, block, values, min(values, 32 if wide else 64), reach)


def _pieces(dim: int) -> list[slice]:
    """Return slices of sizes that are powers of two."""
    found, first = [], 0
    while first < dim:
        size = min(256, 1 << ((dim - first).bit_length() - 1))
        found.append(slice(first, first + size))
        first += size
    return found


def _rows(ref: Any, block: Any, size: int, features: slice) -> Array:
    at = pl.ds(block * size, size), pl.ds(features.start, features.stop - features.start)
    return ref[at]


def _product(a: Array, b: Array, inner: tuple[int, int]) -> Array:
    precision = lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    return lax.dot_general(
        a,
        b,
        (((inner[0],), (inner[1],)), ((), ())),
        precision=precision,
        preferred_element_type=jnp.float32,
    )


def _scores(queries: list[Array], keys: list[Array], start: Array, i: Any, j: Any) -> tuple:
    """Return scores of base 2, and which of them are seen."""
    scores = jnp.zeros((queries[0].shape[0], keys[0].shape[0]), jnp.float32)
    for a, b in zip(queries, keys, strict=True):
        scores += _product(a, b, (1, 1))
    scores *= LOG2_E
    position = functools.partial(lax.broadcasted_iota, jnp.int32, scores.shape)
    query, key = i * scores.shape[0] + position(0), j * scores.shape[1] + position(1)
    return scores, (key >= start[:, None]) & (key <= query)


def _firsts(start: Array, sizes: _Sizes) -> Int[Array, "rows blocks"]:
    """Return the first block of keys that any query of a block sees."""
    return start.reshape(start.shape[0], -1, sizes.queries).min(-1) // sizes.keys


def _lasts(firsts: Array, sizes: _Sizes) -> Int[Array, "rows blocks"]:
    """Return the last block of queries that sees any key of a block; -1: none."""
    each = sizes.queries // sizes.keys
    blocks = firsts.shape[1]
    query, key = jnp.arange(blocks), jnp.arange(blocks * each)[:, None]
    sees = (firsts[:, None] <= key) & (key < (query + 1) * each)
    return jnp.where(sees, query, -1).max(-1).astype(jnp.int32)


def _whole(x: Array) -> pl.BlockSpec:
    return pl.BlockSpec((None, *x.shape[1:]), lambda row, *_: (row, 0, 0)[: x.ndim])


def _call(kernel: Any, name: str, grid: tuple, flops: float, stages: int, **rest: Any) -> Any:
    """Return the call of a kernel with so many multiply-adds for each query and key."""
    out = jax.tree.leaves(rest["out_shape"])
    sizes, tokens = rest.pop("sizes"), rest.pop("tokens")

    def run(*arguments: Array) -> Any:
        return pl.pallas_call(
            kernel,
            name=name,
            grid=grid,
            compiler_params=triton.CompilerParams(
                num_warps=8 if sizes.values > 128 else 4, num_stages=stages
            ),
            cost_estimate=pl.CostEstimate(
                # Half of the keys that can be seen; a block more for queries of two windows.
                flops=int(2 * tokens * (min(sizes.reach / 2, tokens) + sizes.queries) * flops),
                transcendentals=0,
                bytes_accessed=sum(a.nbytes for a in arguments)
                + sum(math.prod(a.shape) * a.dtype.itemsize for a in out),
            ),
            **rest,
        )(*arguments)

    return run


def _forward(q: Array, k: Array, v: Array, start: Array, sizes: _Sizes, interpret: bool) -> tuple:
    # Blocks of keys and values for two turns at once, in 99 KiB of shared memory.
    sizes = sizes._replace(keys=sizes.keys // 2)
    rows, time, dim = q.shape
    splits = v.shape[-1] // sizes.values
    pieces = _pieces(dim)
    each = sizes.queries // sizes.keys

    def kernel(first_ref, start_ref, q_ref, k_ref, v_ref, out_ref, log_ref):
        i = pl.program_id(1)
        begins = start_ref[...]
        queries = [q_ref[:, piece] for piece in pieces]

        def fold(j: Array, carried: tuple) -> tuple:
            largest, total, mixed = carried
            keys = [_rows(k_ref, j, sizes.keys, piece) for piece in pieces]
            scores, seen = _scores(queries, keys, begins, i, j)
            scores = jnp.where(seen, scores, LOWEST)
            highest = jnp.maximum(largest, scores.max(axis=1))
            weights = jnp.where(seen, jnp.exp2(scores - highest[:, None]), 0.0)
            shrink = jnp.exp2(largest - highest)
            values = v_ref[pl.ds(j * sizes.keys, sizes.keys), :]
            new = _product(weights.astype(values.dtype), values, (1, 0))
            total = total * shrink + weights.sum(axis=1)
            return highest, total, mixed * shrink[:, None] + new

        lowest = jnp.full((sizes.queries,), LOWEST, jnp.float32)
        nothing = jnp.zeros((sizes.queries, sizes.values), jnp.float32)
        carried = (lowest, jnp.zeros_like(lowest), nothing)
        largest, total, mixed = lax.fori_loop(first_ref[i], (i + 1) * each, fold, carried)
        sees = total > 0
        safe = jnp.where(sees, total, 1.0)
        out_ref[...] = (mixed / safe[:, None]).astype(out_ref.dtype)

        @pl.when(pl.program_id(2) == 0)
        def _() -> None:
            log_ref[...] = jnp.where(sees, largest + jnp.log2(safe), jnp.inf)

    firsts = _firsts(start, sizes)
    block = (None, sizes.queries)
    out = pl.BlockSpec((*block, sizes.values), lambda row, i, part: (row, i, part))
    some = pl.BlockSpec(block, lambda row, i, part: (row, i))
    return _call(
        kernel,
        "attention",
        (rows, time // sizes.queries, splits),
        rows * (splits * dim + v.shape[-1]),
        2,
        sizes=sizes,
        tokens=time,
        in_specs=[
            _whole(firsts),
            some,
            pl.BlockSpec((*block, dim), lambda row, i, part: (row, i, 0)),
            _whole(k),
            pl.BlockSpec((None, time, sizes.values), lambda row, i, part: (row, 0, part)),
        ],
        out_specs=(out, some),
        out_shape=(
            jax.ShapeDtypeStruct(v.shape, q.dtype),
            jax.ShapeDtypeStruct((rows, time), jnp.float32),
        ),
        interpret=interpret,
    )(firsts, start, q, k, v)


def _pairs(saved: tuple, inner: Array, grad: Array, sizes: _Sizes, interpret: bool) -> Any:
    """Return probabilities and derivatives of scores: [rows, blocks, slots, queries, keys].

    The last slot of a block of queries is the last block of keys that it sees. Blocks that are not
    seen are left as they were in memory.
    """
    q, k, v, start, log_sum = saved
    rows, time, dim = q.shape
    pieces, values = _pieces(dim), v.shape[-1]
    slots, each = sizes.slots(time), sizes.queries // sizes.keys

    def kernel(first_ref, start_ref, log_ref, inner_ref, q_ref, k_ref, v_ref, grad_ref, *out):
        i = pl.program_id(1)
        j = (i + 1) * each - slots + pl.program_id(2)

        @pl.when(j >= first_ref[i])
        def _() -> None:
            queries = [q_ref[:, piece] for piece in pieces]
            keys = [_rows(k_ref, j, sizes.keys, piece) for piece in pieces]
            scores, seen = _scores(queries, keys, start_ref[...], i, j)
            weights = jnp.where(seen, jnp.exp2(scores - log_ref[...][:, None]), 0.0)

            def fold(part: Array, total: Array) -> Array:
                features = pl.ds(part * sizes.inner, sizes.inner)
                values = v_ref[pl.ds(j * sizes.keys, sizes.keys), features]
                return total + _product(grad_ref[:, features], values, (1, 1))

            nothing = jnp.zeros((sizes.queries, sizes.keys), jnp.float32)
            to_weights = lax.fori_loop(0, values // sizes.inner, fold, nothing)
            to_scores = weights * (to_weights - inner_ref[...][:, None])
            # Chosen, not multiplied by a zero weight, which an infinity would survive.
            to_scores = jnp.where(weights > 0, to_scores, 0.0)
            weights_ref, to_scores_ref = out
            weights_ref[...] = weights.astype(weights_ref.dtype)
            to_scores_ref[...] = to_scores.astype(to_scores_ref.dtype)

    firsts = _firsts(start, sizes)
    some = pl.BlockSpec((None, sizes.queries), lambda row, i, slot: (row, i))

    def block(features: int) -> pl.BlockSpec:
        return pl.BlockSpec((None, sizes.queries, features), lambda row, i, slot: (row, i, 0))

    tile = pl.BlockSpec(
        (None, None, None, sizes.queries, sizes.keys), lambda row, i, slot: (row, i, slot, 0, 0)
    )
    shape = (rows, time // sizes.queries, slots, sizes.queries, sizes.keys)
    return _call(
        kernel,
        "attention_pairs",
        (rows, time // sizes.queries, slots),
        rows * (dim + values),
        3,
        sizes=sizes._replace(values=sizes.inner),
        tokens=time,
        in_specs=[
            _whole(firsts),
            some,
            some,
            some,
            block(dim),
            _whole(k),
            _whole(v),
            block(values),
        ],
        out_specs=(tile, tile),
        out_shape=(jax.ShapeDtypeStruct(shape, v.dtype), jax.ShapeDtypeStruct(shape, q.dtype)),
        interpret=interpret,
    )(firsts, start, log_sum, inner, q, k, v, grad)


def _to_queries(pairs: Array, k: Array, start: Array, sizes: _Sizes, interpret: bool) -> Array:
    """Return the derivative with respect to queries: products of blocks of pairs with keys."""
    rows, time, dim = k.shape
    pieces, slots, each = _pieces(dim), pairs.shape[2], sizes.queries // sizes.keys

    def kernel(first_ref, pairs_ref, k_ref, out_ref):
        i = pl.program_id(1)
        end = (i + 1) * each

        def fold(j: Array, totals: tuple) -> tuple:
            pair = pairs_ref[j - end + slots]
            return tuple(
                total + _product(pair, _rows(k_ref, j, sizes.keys, piece), (1, 0))
                for total, piece in zip(totals, pieces, strict=True)
            )

        nothing = tuple(jnp.zeros((sizes.queries, p.stop - p.start), jnp.float32) for p in pieces)
        totals = lax.fori_loop(first_ref[i], end, fold, nothing)
        for total, piece in zip(totals, pieces, strict=True):
            out_ref[:, piece] = total.astype(out_ref.dtype)

    firsts = _firsts(start, sizes)
    return _call(
        kernel,
        "attention_to_queries",
        (rows, time // sizes.queries),
        rows * dim,
        3,
        sizes=sizes._replace(values=128),
        tokens=time,
        in_specs=[
            _whole(firsts),
            pl.BlockSpec((None, None, *pairs.shape[2:]), lambda row, i: (row, i, 0, 0, 0)),
            _whole(k),
        ],
        out_specs=pl.BlockSpec((None, sizes.queries, dim), lambda row, i: (row, i, 0)),
        out_shape=jax.ShapeDtypeStruct(k.shape, k.dtype),
        interpret=interpret,
    )(firsts, pairs, k)


def _to_keys(
    pairs: Array, x: Array, start: Array, width: int, name: str, sizes: _Sizes, interpret: bool
) -> Array:
    """Return products of transposed blocks of pairs with what queries have, for each key."""
    rows, time, _ = x.shape
    pieces, slots, each = _pieces(width), pairs.shape[2], sizes.queries // sizes.keys

    def kernel(first_ref, last_ref, pairs_ref, x_ref, out_ref):
        j = pl.program_id(1)

        def fold(i: Array, totals: tuple) -> tuple:
            slot = j - (i + 1) * each + slots
            # Documents may be so that a block between others sees nothing of these keys.
            written = jnp.broadcast_to(first_ref[i] <= j, (sizes.queries, sizes.keys))
            pair = triton.load(pairs_ref.at[i, slot], mask=written, other=0.0)
            return tuple(
                total + _product(pair, _rows(x_ref, i, sizes.queries, piece), (0, 0))
                for total, piece in zip(totals, pieces, strict=True)
            )

        nothing = tuple(jnp.zeros((sizes.keys, p.stop - p.start), jnp.float32) for p in pieces)
        totals = lax.fori_loop(lax.div(j, jnp.int32(each)), last_ref[j] + 1, fold, nothing)
        for total, piece in zip(totals, pieces, strict=True):
            out_ref[:, piece] = total.astype(out_ref.dtype)

    firsts = _firsts(start, sizes)
    lasts = _lasts(firsts, sizes)
    return _call(
        kernel,
        name,
        (rows, time // sizes.keys, x.shape[-1] // width),
        rows * x.shape[-1],
        2,
        sizes=sizes,
        tokens=time,
        in_specs=[
            _whole(firsts),
            _whole(lasts),
            pl.BlockSpec((None, *pairs.shape[1:]), lambda row, j, part: (row, 0, 0, 0, 0)),
            pl.BlockSpec((None, time, width), lambda row, j, part: (row, 0, part)),
        ],
        out_specs=pl.BlockSpec((None, sizes.keys, width), lambda row, j, part: (row, j, part)),
        out_shape=jax.ShapeDtypeStruct(x.shape, x.dtype),
        interpret=interpret,
    )(firsts, lasts, pairs, x)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _attention(q: Array, k: Array, v: Array, start: Array, sizes: _Sizes, interpret: bool) -> Array:
    return _forward(q, k, v, start, sizes, interpret)[0]


def _attention_forward(
    q: Array, k: Array, v: Array, start: Array, sizes: _Sizes, interpret: bool
) -> tuple[Array, tuple[Array, ...]]:
    out, log_sum = checkpoint_name(_forward(q, k, v, start, sizes, interpret), SAVED)
    return out, (q, k, v, start, out, log_sum)


def _attention_backward(
    sizes: _Sizes, interpret: bool, saved: tuple[Array, ...], grad: Array
) -> tuple[Array, Array, Array, None]:
    q, k, v, start, out, log_sum = saved
    inner = (grad.astype(jnp.float32) * out.astype(jnp.float32)).sum(axis=-1)
    grad = grad.astype(v.dtype)
    pairs = _pairs((q, k, v, start, log_sum), inner, grad, sizes, interpret)
    weights, to_scores = pairs
    to_q = _to_queries(to_scores, k, start, sizes, interpret)
    to_k = _to_keys(to_scores, q, start, q.shape[-1], "attention_to_keys", sizes, interpret)
    to_v = _to_keys(weights, grad, start, sizes.values, "attention_to_values", sizes, interpret)
    return to_q, to_k, to_v, None


_attention.defvjp(_attention_forward, _attention_backward)
