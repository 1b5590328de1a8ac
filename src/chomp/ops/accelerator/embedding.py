"""Rows of an embedding, with a gradient that is summed without atomic additions.

The derivative of a lookup adds the gradients of all tokens with the same id. GPUs do that with
atomic additions, whose order is different each time; made deterministic by XLA, the same takes 25
passes over as many numbers. Here the tokens are sorted by their ids, equal ones are summed by
products with 0/1 matrices, and each sum is written once.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from chomp.ops.accelerator.segment_sums import prefix_sums


def embedding(
    weight: Float[Array, "vocab dim"], ids: Int[Array, "*shape"]
) -> Float[Array, "*shape dim"]:
    """Return `weight[ids]`; ids must be from 0 to the vocabulary's size less one."""
    rows = _lookup(weight, ids.reshape(-1))
    return rows.reshape(*ids.shape, weight.shape[1])


@jax.custom_vjp
def _lookup(weight: Array, ids: Int[Array, " tokens"]) -> Array:
    return weight.at[ids].get(mode="promise_in_bounds")


def _forward(weight: Array, ids: Array) -> tuple[Array, tuple[Array, Array]]:
    return _lookup(weight, ids), (weight, ids)


def _backward(
    saved: tuple[Array, Array], grad: Float[Array, "tokens dim"]
) -> tuple[Array, np.ndarray]:
    weight, ids = saved
    tokens = ids.shape[0]
    number = jnp.arange(tokens, dtype=ids.dtype)
    ids, order = jax.lax.sort((ids, number), num_keys=1)
    begins = jnp.concatenate([jnp.ones(1, bool), ids[1:] != ids[:-1]])
    positions = number - jax.lax.cummax(jnp.where(begins, number, 0))
    sorted_rows = grad.at[order].get(mode="promise_in_bounds").astype(jnp.float32)
    sums = prefix_sums(sorted_rows[None], positions[None])[0]
    ends = jnp.concatenate([begins[1:], jnp.ones(1, bool)])
    # Only the last of each id is written; the others' places lie outside, all of them different.
    where = jnp.where(ends, ids, weight.shape[0] + number)
    total = jnp.zeros(weight.shape, jnp.float32)
    total = total.at[where].set(sums, mode="drop", unique_indices=True)
    return total.astype(weight.dtype), np.zeros(tokens, jax.dtypes.float0)


_lookup.defvjp(_forward, _backward)
