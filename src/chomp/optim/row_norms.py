"""Rows of matrices brought to equal size."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int


class RowNormsState(NamedTuple):
    """Averages of the rows of all matrices."""

    updates: Int[Array, ""]
    """So many have been made."""
    squares: Any
    """A tree like the parameters: the averaged mean square of each row, [rows, 1]."""


def normalize_rows(decay: float, eps: float = 1e-8) -> optax.GradientTransformation:
    """Divide each row of an update by the root of its averaged mean square.

    Each matrix keeps its norm, so that learning rates mean what they did. (NorMuon, Li et al.,
    arXiv:2510.05491; there the norm becomes a constant instead, as `optim.muon.consistent_rms`
    has it.)

    Args:
        decay: of the average, by update.
        eps: added to the root.
    """

    def init(params: Any) -> RowNormsState:
        squares = jax.tree.map(lambda p: jnp.zeros((p.shape[0], 1), jnp.float32), params)
        return RowNormsState(jnp.zeros([], jnp.int32), squares)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        now = jax.tree.map(lambda u: jnp.square(u).mean(axis=-1, keepdims=True), updates)
        squares = optax.tree.update_moment(now, state.squares, decay, 1)
        count = jnp.asarray(optax.safe_increment(state.updates))

        def normal(update: Array, square: Array) -> Array:
            rows = update / (jnp.sqrt(square) + eps)
            return rows * (jnp.linalg.norm(update) / (jnp.linalg.norm(rows) + eps))

        even = jax.tree.map(normal, updates, optax.tree.bias_correction(squares, decay, count))
        return even, RowNormsState(count, squares)

    return optax.GradientTransformation(init, update)
