"""Matrices of one shape, stacked for work on them together."""

from collections import defaultdict
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Stacks = list[Float[Array, "matrices rows columns"]]


class Stacked(Protocol):
    """The matrices of a tree, those of one shape in one stack."""

    @property
    def stacks(self) -> Stacks:
        """The stacks; one may end in zeros."""
        ...

    def restore(self, stacks: Stacks) -> Any:
        """Return the tree with the matrices of other stacks, of the same shapes as its own."""
        ...


class Stacking(Protocol):
    """Stacks matrices where they are."""

    def stack(self, tree: Any, squares: int) -> Stacked:
        """Stack the matrices of a tree.

        Args:
            tree: the matrices.
            squares: products of a matrix with its transpose in the work to come, along its longer
                dimension.
        """
        ...


class LocalStacks(NamedTuple):
    """Stacks of whole matrices."""

    stacks: Stacks
    numbers: list[list[int]]
    """The places in the tree of each stack's matrices."""
    structure: Any
    """That of the tree."""

    def restore(self, stacks: Stacks) -> Any:
        """Return the tree with the matrices of other stacks, of the same shapes as its own."""
        matrices: dict[int, Array] = {}
        for numbers, stack in zip(self.numbers, stacks, strict=True):
            for place, number in enumerate(numbers):
                matrices[number] = stack[place]
        return jax.tree.unflatten(self.structure, [matrices[i] for i in range(len(matrices))])


class LocalStacking:
    """Stacks matrices that every device has whole.

    On a GPU a product of a stack is one launch, and large enough for the whole chip.
    """

    def stack(self, tree: Any, squares: int) -> LocalStacks:
        """Stack the matrices of a tree; how often they are squared is of no matter."""
        matrices, structure = jax.tree.flatten(tree)
        alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for number, matrix in enumerate(matrices):
            alike[matrix.shape].append(number)
        numbers = list(alike.values())
        stacks = [jnp.stack([matrices[number] for number in stack]) for stack in numbers]
        return LocalStacks(stacks, numbers, structure)
