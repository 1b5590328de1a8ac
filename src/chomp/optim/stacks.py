"""Work on matrices of one shape together."""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Stacks = list[Float[Array, "matrices rows columns"]]


def in_stacks(tree: Any, work: Callable[[Stacks], Stacks], squares: int = 0) -> Any:
    """Apply `work` to the matrices of a tree, those of one shape stacked.

    On a GPU a product of a stack is one launch, and large enough for the whole chip.

    Args:
        tree: of matrices.
        work: takes stacks of matrices to stacks of the same shapes.
        squares: not used; as `chomp.distributed.deal_out`, for matrices on several devices.
    """
    matrices, structure = jax.tree.flatten(tree)
    alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for number, matrix in enumerate(matrices):
        alike[matrix.shape].append(number)
    stacks = [jnp.stack([matrices[number] for number in numbers]) for numbers in alike.values()]
    for numbers, stack in zip(alike.values(), work(stacks), strict=True):
        for place, number in enumerate(numbers):
            matrices[number] = stack[place]
    return jax.tree.unflatten(structure, matrices)
