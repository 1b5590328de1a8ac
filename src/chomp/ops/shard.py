"""A device's share of an array, which it makes whole where it is needed."""

from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array


class Shard(eqx.Module):
    """One of the equal pieces of an array that the devices along a mesh axis hold.

    Exists only inside of `jax.shard_map`.
    """

    piece: Array
    along: int = eqx.field(static=True)
    """The dimension of the array that is cut."""
    mesh_axis: str = eqx.field(static=True)

    def whole(self) -> Array:
        """Fetch the other pieces; the derivative sums and cuts (a reduce-scatter)."""
        return jax.lax.all_gather(self.piece, self.mesh_axis, axis=self.along, tiled=True)


def is_shard(node: Any) -> bool:
    """Whether `node` is one."""
    return isinstance(node, Shard)


def has_shards(tree: Any) -> bool:
    """Whether there is a share in the tree."""
    return any(map(is_shard, jax.tree.leaves(tree, is_leaf=is_shard)))


def whole(tree: Any) -> Any:
    """Return a tree with all shares in it made whole."""
    return jax.tree.map(
        lambda leaf: leaf.whole() if is_shard(leaf) else leaf, tree, is_leaf=is_shard
    )
