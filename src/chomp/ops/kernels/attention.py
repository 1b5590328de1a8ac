"""Attention over spans as GPU kernels: no score of an unseen block is computed, none of it is kept.

What `chomp.ops.span_attention` computes. Written in Pallas for its Triton lowering: for NVIDIA
GPUs. The forward pass is FlashAttention-2's (Dao, arXiv:2307.08691): a program for a block of
queries and some of the values' features, with a running softmax. The backward pass computes each
block's probabilities and derivatives of scores once and stores them, in the dtype of the operands;
the three derivatives are then products with these blocks. Every sum has one order: no atomics.

Bfloat16 operands are multiplied on tensor cores and summed in float32.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl
from jaxtyping import Array, Float, Int

from chomp.ops.kernels.attention_backward import attention_gradients
from chomp.ops.kernels.blocks import (
    SMALLEST,
    BlockSizes,
    Sizes,
    block_sizes,
    first_keys,
    kernel_call,
    pieces_of,
    product,
    rows_of,
    scores_of,
    whole,
)
from chomp.ops.span_attention import LOWEST, SAVED


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
    sizes = block_sizes(q.dtype, v.shape[-1], reach or time)
    pad = -time % sizes.backward.queries

    def padded(x: Array, features: int) -> Array:
        x = jnp.pad(x, ((0, 0), (0, 0), (0, pad), (0, -x.shape[-1] % features)))
        return x.reshape(batch * heads, time + pad, -1)

    if reach:
        start = jnp.maximum(start, jnp.arange(time) - reach + 1)
    start = jnp.pad(start, ((0, 0), (0, pad)), constant_values=time + pad)
    start = jnp.repeat(start.astype(jnp.int32), heads, axis=0)
    q, k, values = padded(q, SMALLEST), padded(k, SMALLEST), padded(v, sizes.forward.values)
    out: Array = _attention(q, k, values, start, sizes, interpret)
    return out.reshape(batch, heads, time + pad, -1)[:, :, :time, : v.shape[-1]]


def _forward(q: Array, k: Array, v: Array, start: Array, sizes: Sizes, interpret: bool) -> tuple:
    rows, time, dim = q.shape
    splits = v.shape[-1] // sizes.values
    pieces = pieces_of(dim)
    each = sizes.queries // sizes.keys

    def kernel(first_ref, start_ref, q_ref, k_ref, v_ref, out_ref, log_ref):
        i = pl.program_id(1)
        begins = start_ref[...]
        queries = [q_ref[:, piece] for piece in pieces]

        def fold(j: Array, carried: tuple) -> tuple:
            largest, total, mixed = carried
            keys = [rows_of(k_ref, j, sizes.keys, piece) for piece in pieces]
            scores, seen = scores_of(queries, keys, begins, i, j)
            scores = jnp.where(seen, scores, LOWEST)
            highest = jnp.maximum(largest, scores.max(axis=1))
            weights = jnp.where(seen, jnp.exp2(scores - highest[:, None]), 0.0)
            shrink = jnp.exp2(largest - highest)
            values = v_ref[pl.ds(j * sizes.keys, sizes.keys), :]
            new = product(weights.astype(values.dtype), values, (1, 0))
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

    firsts = first_keys(start, sizes)
    block = (None, sizes.queries)
    out = pl.BlockSpec((*block, sizes.values), lambda row, i, part: (row, i, part))
    some = pl.BlockSpec(block, lambda row, i, part: (row, i))
    return kernel_call(
        kernel,
        "attention",
        (rows, time // sizes.queries, splits),
        rows * (splits * dim + v.shape[-1]),
        warps=4,
        stages=3,
        sizes=sizes,
        tokens=time,
        in_specs=[
            whole(firsts),
            some,
            pl.BlockSpec((*block, dim), lambda row, i, part: (row, i, 0)),
            whole(k),
            pl.BlockSpec((None, time, sizes.values), lambda row, i, part: (row, 0, part)),
        ],
        out_specs=(out, some),
        out_shape=(
            jax.ShapeDtypeStruct(v.shape, q.dtype),
            jax.ShapeDtypeStruct((rows, time), jnp.float32),
        ),
        interpret=interpret,
    )(firsts, start, q, k, v)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _attention(
    q: Array, k: Array, v: Array, start: Array, sizes: BlockSizes, interpret: bool
) -> Array:
    return _forward(q, k, v, start, sizes.forward, interpret)[0]


def _attention_forward(
    q: Array, k: Array, v: Array, start: Array, sizes: BlockSizes, interpret: bool
) -> tuple[Array, tuple[Array, ...]]:
    out, log_sum = checkpoint_name(_forward(q, k, v, start, sizes.forward, interpret), SAVED)
    return out, (q, k, v, start, out, log_sum)


def _attention_backward(
    sizes: BlockSizes, interpret: bool, saved: tuple[Array, ...], grad: Array
) -> tuple[Array, Array, Array, None]:
    return *attention_gradients(saved, grad, sizes.backward, interpret), None


_attention.defvjp(_attention_forward, _attention_backward)
