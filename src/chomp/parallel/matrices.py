"""Work on whole matrices that the devices of an `fsdp` group hold in pieces."""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float

from chomp.parallel.mesh import FSDP
from chomp.parallel.placement import Placement

Stacks = list[Float[Array, "matrices rows columns"]]


def deal_out(placement: Placement, tree: Any, work: Callable[[Stacks], Stacks]) -> Any:
    """Apply `work` to the matrices of a tree, each of them on one device of its group.

    Matrices of one shape are stacked and exchanged so that every device has its share of them
    whole; what comes out goes back in pieces. Either way a device sends less than the bytes that
    it holds, where putting every matrix together on every device would send all of them.

    Args:
        placement: says how matrices are cut.
        tree: of matrices.
        work: takes stacks of matrices to stacks of the same shapes; a stack may end in zeros.
    """
    mesh, size = placement.mesh, placement.mesh.shape[FSDP]
    matrices, structure = jax.tree.flatten(tree)
    alike: dict[Any, list[int]] = defaultdict(list)
    specs = jax.tree.leaves(placement.specs(tree), is_leaf=lambda node: isinstance(node, P))
    for number, (matrix, spec) in enumerate(zip(matrices, specs, strict=True)):
        alike[matrix.shape, spec].append(number)

    def constrain(stack: Array, spec: P) -> Array:
        return jax.lax.with_sharding_constraint(stack, NamedSharding(mesh, spec))

    stacks = []
    for (_, spec), numbers in alike.items():
        stack = constrain(jnp.stack([matrices[number] for number in numbers]), P(None, *spec))
        stack = jnp.pad(stack, ((0, -len(numbers) % size), (0, 0), (0, 0)))
        stacks.append(constrain(stack, P(FSDP)))
    for ((_, spec), numbers), stack in zip(alike.items(), work(stacks), strict=True):
        pieces = constrain(constrain(stack, P(FSDP)), P(None, *spec))
        for place, number in enumerate(numbers):
            matrices[number] = pieces[place]
    return jax.tree.unflatten(structure, matrices)
