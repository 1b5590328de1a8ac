"""Whole matrices that the devices of an `fsdp` group hold in pieces, stacked for work on them."""

from collections import defaultdict
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float

from chomp.distributed.mesh import FSDP
from chomp.distributed.sharding import MeshSharding

Stacks = list[Float[Array, "matrices rows columns"]]


class _Place(NamedTuple):
    """Where the matrices of a stack belong."""

    numbers: list[int]
    """Their places in the tree."""
    spec: P
    """How each of them is cut there."""
    cut: P
    """How the stack is cut while it is worked on."""


class ShardedStacks(NamedTuple):
    """Stacks of matrices that several devices share."""

    stacks: Stacks
    """Those whose matrices are whole on a device may end in zeros."""
    places: list[_Place]
    structure: Any
    """That of the tree."""
    mesh: Mesh

    def restore(self, stacks: Stacks) -> Any:
        """Return the tree with the matrices of other stacks, in pieces as they were."""
        matrices: dict[int, Array] = {}
        for (numbers, spec, cut), stack in zip(self.places, stacks, strict=True):
            pieces = _constrain(_constrain(stack, cut, self.mesh), P(None, *spec), self.mesh)
            for place, number in enumerate(numbers):
                matrices[number] = pieces[place]
        return jax.tree.unflatten(self.structure, [matrices[i] for i in range(len(matrices))])


class ShardedStacking:
    """Stacks matrices so that each of them is whole on one device of its group.

    Matrices of one shape are stacked and exchanged so that every device has its share of them
    whole; what comes out goes back in pieces. Either way a device sends less than the bytes that
    it holds, where putting every matrix together on every device would send all of them. Few and
    long ones stay in pieces: less is sent if the devices add up their shares of the squares.

    Args:
        sharding: how matrices are cut.
    """

    def __init__(self, sharding: MeshSharding):
        self._sharding = sharding

    def stack(self, tree: Any, squares: int) -> ShardedStacks:
        """Stack the matrices of a tree.

        Args:
            tree: the matrices.
            squares: products of a matrix with its transpose in the work to come, along its longer
                dimension.
        """
        mesh, specs = self._sharding.mesh, self._sharding.specs(tree)
        matrices, structure = jax.tree.flatten(tree)
        alike: dict[Any, list[int]] = defaultdict(list)
        specs = jax.tree.leaves(
            self._sharding.specs(tree), is_leaf=lambda node: isinstance(node, P)
        )
        for number, (matrix, spec) in enumerate(zip(matrices, specs, strict=True)):
            alike[matrix.shape, spec].append(number)
        stacks, places = [], []
        for (shape, spec), numbers in alike.items():
            cut = P(None, *spec)
            stack = _constrain(jnp.stack([matrices[number] for number in numbers]), cut, mesh)
            if not _stays_in_pieces(shape, spec, len(numbers), mesh.shape[FSDP], squares):
                stack = jnp.pad(stack, ((0, -len(numbers) % mesh.shape[FSDP]), (0, 0), (0, 0)))
                cut = P(FSDP)
            stacks.append(_constrain(stack, cut, mesh))
            places.append(_Place(numbers, spec, cut))
        return ShardedStacks(stacks, places, structure, mesh)


def _constrain(stack: Array, spec: P, mesh: Mesh) -> Array:
    return jax.lax.with_sharding_constraint(stack, NamedSharding(mesh, spec))


def _stays_in_pieces(shape: tuple[int, ...], spec: P, count: int, size: int, squares: int) -> bool:
    """Say whether sums of squares are fewer bytes than an exchange of `count` matrices and back."""
    if FSDP not in spec or shape[spec.index(FSDP)] < max(shape):
        return False
    return count * squares * min(shape) < -(-count // size) * max(shape)
