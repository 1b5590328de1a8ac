"""Blocks of the attention kernels: their sizes, scores and products, and which are seen."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array, Int

SMALLEST = 16
"""Of the sizes of products on tensor cores."""
LOG2_E = math.log2(math.e)


class Sizes(NamedTuple):
    """Of the blocks: of a power of two each, `queries` a multiple of `keys`."""

    queries: int
    keys: int
    values: int
    """Features of values that one program computes."""
    inner: int
    """Features that one product of gradients with values sums over."""
    reach: int
    """Keys that a query sees at most."""

    def slots(self, time: int) -> int:
        """Return how many blocks of keys a block of queries may see."""
        return min(-(-(self.queries + self.reach - 1) // self.keys), time // self.keys)


class BlockSizes(NamedTuple):
    """Those of the kernels of the forward and of the backward pass."""

    forward: Sizes
    backward: Sizes


def block_sizes(dtype: Any, values: int, reach: int) -> BlockSizes:
    """Return the blocks for this number format, width of values and reach.

    Chosen among some thirty on an H100; all fit into 99 KiB of shared memory as well.
    """
    values = max(SMALLEST, pl.next_power_of_2(values))
    if jnp.dtype(dtype).itemsize > 2:
        values = min(64, values)
        inner = min(32, values)
        return BlockSizes(Sizes(32, 16, values, inner, reach), Sizes(32, 32, values, inner, reach))
    forward = Sizes(64, 32, min(256, values), min(64, values), reach)
    return BlockSizes(forward, Sizes(128, 64, min(128, values), min(64, values), reach))


def pieces_of(dim: int) -> list[slice]:
    """Return slices of sizes that are powers of two."""
    found, first = [], 0
    while first < dim:
        size = min(256, 1 << ((dim - first).bit_length() - 1))
        found.append(slice(first, first + size))
        first += size
    return found


def rows_of(ref: Any, block: Any, size: int, features: slice) -> Array:
    """Load these features of a block of rows."""
    at = pl.ds(block * size, size), pl.ds(features.start, features.stop - features.start)
    return ref[at]


def product(a: Array, b: Array, inner: tuple[int, int]) -> Array:
    """Return the product in float32, summed over axis `inner[0]` of a and `inner[1]` of b."""
    precision = lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    return lax.dot_general(
        a,
        b,
        (((inner[0],), (inner[1],)), ((), ())),
        precision=precision,
        preferred_element_type=jnp.float32,
    )


def scores_of(queries: list[Array], keys: list[Array], start: Array, i: Any, j: Any) -> tuple:
    """Return scores of base 2, and which of them are seen."""
    scores = jnp.zeros((queries[0].shape[0], keys[0].shape[0]), jnp.float32)
    for a, b in zip(queries, keys, strict=True):
        scores += product(a, b, (1, 1))
    scores *= LOG2_E
    position = functools.partial(lax.broadcasted_iota, jnp.int32, scores.shape)
    query, key = i * scores.shape[0] + position(0), j * scores.shape[1] + position(1)
    return scores, (key >= start[:, None]) & (key <= query)


def first_keys(start: Array, sizes: Sizes) -> Int[Array, "rows blocks"]:
    """Return the first block of keys that any query of a block sees."""
    return start.reshape(start.shape[0], -1, sizes.queries).min(-1) // sizes.keys


def last_queries(firsts: Array, sizes: Sizes) -> Int[Array, "rows blocks"]:
    """Return the last block of queries that sees any key of a block; -1: none."""
    each = sizes.queries // sizes.keys
    blocks = firsts.shape[1]
    query, key = jnp.arange(blocks), jnp.arange(blocks * each)[:, None]
    sees = (firsts[:, None] <= key) & (key < (query + 1) * each)
    return jnp.where(sees, query, -1).max(-1).astype(jnp.int32)


def whole(x: Array) -> pl.BlockSpec:
    """Return the specification of all of an array's row, for every program of the row."""
    return pl.BlockSpec((None, *x.shape[1:]), lambda row, *_: (row, 0, 0)[: x.ndim])


def kernel_call(
    kernel: Any, name: str, grid: tuple, flops: float, warps: int, stages: int, **rest: Any
) -> Any:
    """Return the call of a kernel with so many multiply-adds for each query and key."""
    out = jax.tree.leaves(rest["out_shape"])
    sizes, tokens = rest.pop("sizes"), rest.pop("tokens")

    def run(*arguments: Array) -> Any:
        return pl.pallas_call(
            kernel,
            name=name,
            grid=grid,
            compiler_params=triton.CompilerParams(num_warps=warps, num_stages=stages),
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
