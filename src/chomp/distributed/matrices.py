"""Work on whole matrices that the devices of an `fsdp` group hold in pieces."""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float

from chomp.distributed.mesh import FSDP
from chomp.distributed.sharding import MeshSharding

Stacks = list[Float[Array, "matrices rows columns"]]


def distribute_matrices(
    sharding: MeshSharding, tree: Any, work: Callable[[Stacks], Stacks], squares: int
) -> Any:
    """Apply `work` to the matrices of a tree, each of them on one device of its group.

    Matrices of one shape are stacked and exchanged so that every device has its share of them
    whole; what comes out goes back in pieces. Either way a device sends less than the bytes that
    it holds, where putting every matrix together on every device would send all of them. Few and
    long ones stay in pieces: less is sent if the devices add up their shares of the squares.

    Args:
        sharding: how matrices are cut.
        tree: the matrices.
        work: takes stacks of matrices to stacks of the same shapes; a stack may end in zeros.
        squares: products of a matrix with its transpose in `work`, along its longer dimension.
    """
    mesh, size = sharding.mesh, sharding.mesh.shape[FSDP]
    matrices, structure = jax.tree.flatten(tree)
    alike: dict[Any, list[int]] = defaultdict(list)
    specs = jax.tree.leaves(sharding.specs(tree), is_leaf=lambda node: isinstance(node, P))
    for number, (matrix, spec) in enumerate(zip(matrices, specs, strict=True)):
        alike[matrix.shape, spec].append(number)

    def constrain(stack: Array, spec: P) -> Array:
        return jax.lax.with_sharding_constraint(stack, NamedSharding(mesh, spec))

    stacks, places = [], []
    for (shape, spec), numbers in alike.items():
        cut = P(None, *spec)
        stack = constrain(jnp.stack([matrices[number] for number in numbers]), cut)
        if not _stays_in_pieces(shape, spec, len(numbers), size, squares):
            stack = jnp.pad(stack, ((0, -len(numbers) % size), (0, 0), (0, 0)))
            cut = P(FSDP)
        stacks.append(constrain(stack, cut))
        places.append(cut)
    done = zip(alike.items(), work(stacks), places, strict=True)
    for ((_, spec), numbers), stack, cut in done:
        pieces = constrain(constrain(stack, cut), P(None, *spec))
        for place, number in enumerate(numbers):
            matrices[number] = pieces[place]
    return jax.tree.unflatten(structure, matrices)


def _stays_in_pieces(shape: tuple[int, ...], spec: P, count: int, size: int, squares: int) -> bool:
    """Say whether sums of squares are fewer bytes than an exchange of `count` matrices and back."""
    if FSDP not in spec or shape[spec.index(FSDP)] < max(shape):
        return False
    return count * squares * min(shape) < -(-count // size) * max(shape)
