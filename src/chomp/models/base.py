"""What the rest of chomp asks of a language model."""

import abc
from typing import Any, ClassVar

import jax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from chomp.types import Batch, ParameterKind

PASSES = 3
"""Forward once, backward twice: each product has a gradient for either factor."""


class LanguageModel(abc.ABC):
    """A language model: how to make its parameters, its loss, and what its parameters are.

    The parameters are a tree of arrays (an Equinox module, for example); everything static is in
    the model. A path is the names from the tree's root to an array, with dots between them:
    `layers.0.attn.wz.weight`.
    """

    can_generate: ClassVar[bool] = False
    """Whether its parameters are a `megalodon_jax.MegalodonForCausalLM`, which can write text."""

    @abc.abstractmethod
    def init(self, key: PRNGKeyArray) -> Any:
        """Make fresh parameters."""

    @abc.abstractmethod
    def loss(
        self, params: Any, rows: Batch, key: PRNGKeyArray | None
    ) -> tuple[Float[Array, ""], Int[Array, ""]]:
        """Return the summed loss in nats and the number of targets of `rows` [batch, time].

        Args:
            params: what `init` made.
            rows: one microbatch, its arrays without the `accum` axis.
            key: for dropout; None switches dropout off.
        """

    def cast_dtypes(self, params: Any) -> Any:
        """Return the dtype that each parameter is cast to before anything else is done with it.

        By default its own.

        Args:
            params: what `init` made, or its shapes.
        """
        return jax.tree.map(lambda leaf: leaf.dtype, params)

    def parameter_kind(self, path: str, shape: tuple[int, ...]) -> ParameterKind:
        """Return what a parameter is, which decides how it is updated.

        By default embedding and output head are known by their names, `embed` and `lm_head`, and
        any other matrix is a projection.
        """
        if "embed" in path:
            return ParameterKind.EMBEDDING
        if "lm_head" in path and len(shape) == 2:
            return ParameterKind.HEAD
        return ParameterKind.PROJECTION if len(shape) == 2 else ParameterKind.OTHER

    def shard_axis(self, path: str, shape: tuple[int, ...]) -> int | None:
        """Return the dimension that `parallel.fsdp` cuts if it can; None: the largest.

        By default the first of embeddings and projections. It is asked for arrays of the optimizer
        too, whose paths end in the path of their parameter.
        """
        return None if self.parameter_kind(path, shape) is ParameterKind.OTHER else 0

    @property
    def product_dtype(self) -> str:
        """The number format that matrix products are computed in."""
        return "float32"

    @property
    def flops_per_token(self) -> int:
        """Operations of matrix products, forward and backward, per position of a row.

        A product that sums over n terms is 2n operations an element. By default each projection
        and the head are multiplied once.
        """
        params = jax.eval_shape(self.init, jax.random.PRNGKey(0))
        leaves = jax.tree.leaves(params), jax.tree.leaves(self.parameter_kinds(params))
        multiplied = sum(
            leaf.size
            for leaf, kind in zip(*leaves, strict=True)
            if kind in (ParameterKind.PROJECTION, ParameterKind.HEAD)
        )
        return PASSES * 2 * multiplied

    def parameter_kinds(self, params: Any) -> Any:
        """Return a tree like `params` with each one's `ParameterKind`."""
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: self.parameter_kind(
                jax.tree_util.keystr(path, simple=True, separator="."), tuple(leaf.shape)
            ),
            params,
        )
