"""A device's share of an array, which it makes whole where it is needed."""

import functools
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array


@dataclass(frozen=True)
class Cut:
    """How an array is cut among devices, and what they send to put it together.

    Attributes:
        along: the dimension of the array that is cut.
        mesh_axis: of the devices that have the pieces.
        fetched: dtype in which pieces are fetched; the array made of them has the pieces' own.
        reduced: dtype in which the devices add up its derivative.
    """

    along: int
    mesh_axis: str
    fetched: np.dtype
    reduced: np.dtype


class ParamShard(eqx.Module):
    """One of the equal pieces of an array that the devices along a mesh axis hold.

    Exists only inside of `jax.shard_map`.
    """

    piece: Array
    cut: Cut = eqx.field(static=True)

    def gather(self) -> Array:
        """Fetch the other pieces; the derivative sums and cuts (a reduce-scatter)."""
        return _whole(self.cut, self.piece)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _whole(cut: Cut, piece: Array) -> Array:
    def gather(array: Array) -> Array:
        return jax.lax.all_gather(array, cut.mesh_axis, axis=cut.along, tiled=True)

    if cut.fetched == piece.dtype:
        return gather(piece)
    # As bits: else XLA may send what it has cast back, as it always does between CPUs.
    bits = jnp.dtype(f"uint{8 * cut.fetched.itemsize}")
    sent = jax.lax.bitcast_convert_type(piece.astype(cut.fetched), bits)
    return jax.lax.bitcast_convert_type(gather(sent), cut.fetched).astype(piece.dtype)


def _whole_forward(cut: Cut, piece: Array) -> tuple[Array, None]:
    return _whole(cut, piece), None


def _whole_backward(cut: Cut, saved: None, grad: Array) -> tuple[Array]:
    return (summed_piece(cut, grad),)


_whole.defvjp(_whole_forward, _whole_backward)


def summed_piece(cut: Cut, array: Array) -> Array:
    """Return this device's piece of the sum of an array over the devices that cut it."""
    sent = array.astype(cut.reduced)
    piece = jax.lax.psum_scatter(sent, cut.mesh_axis, scatter_dimension=cut.along, tiled=True)
    return piece.astype(array.dtype)


def is_shard(node: Any) -> bool:
    """Whether `node` is one."""
    return isinstance(node, ParamShard)


def has_shards(tree: Any) -> bool:
    """Whether there is a share in the tree."""
    return any(map(is_shard, jax.tree.leaves(tree, is_leaf=is_shard)))


def gather(tree: Any) -> Any:
    """Return a tree with all shares in it made whole."""
    return jax.tree.map(
        lambda leaf: leaf.gather() if is_shard(leaf) else leaf, tree, is_leaf=is_shard
    )
