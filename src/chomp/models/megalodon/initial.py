"""Initial values other than the library's."""

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from megalodon_jax import MegalodonForCausalLM
from megalodon_jax.layers.complex_ema import ComplexEMA


@dataclass(frozen=True)
class InitialValues:
    """What replaces the library's own initial values.

    Attributes:
        zero_head: the output head is zero, so that the first loss is that of a uniform guess
            (as in modded-nanogpt and muP, arXiv:2203.03466, appendix D.2).
        zero_outputs: so are the last matrices of each block, which then begins as the identity
            (as in ReZero, arXiv:2003.04887, and T-Fixup, Huang et al., 2020).
        memory: tokens that the slowest component of each moving average remembers; the others are
            spread below it by equal factors (as S4D and LRU spread theirs, arXiv:2303.06349). None:
            the library's, all of about four tokens.
    """

    zero_head: bool = False
    zero_outputs: bool = False
    memory: float | None = None

    def of(self, params: MegalodonForCausalLM) -> MegalodonForCausalLM:
        """Return the library's fresh parameters with these values in place."""

        def zero(weight: Array) -> Array:
            return jnp.zeros_like(weight)

        if self.zero_head and params.lm_head is not None:
            params = eqx.tree_at(lambda p: p.lm_head.weight, params, replace_fn=zero)
        if self.zero_outputs:
            params = eqx.tree_at(_output_weights, params, replace_fn=zero)
        if self.memory is None:
            return params
        return jax.tree.map(
            self._with_memory, params, is_leaf=lambda node: isinstance(node, ComplexEMA)
        )

    def _with_memory(self, node: Any) -> Any:
        if not isinstance(node, ComplexEMA):
            return node
        assert self.memory is not None
        logits = jnp.broadcast_to(_logits(node.ndim, self.memory)[:, None], node.alpha.shape)
        # The library's noise stays, so that no two channels begin alike.
        alpha, delta = node.alpha + logits, node.delta + logits
        return eqx.tree_at(lambda ema: (ema.alpha, ema.delta), node, (alpha, delta))


AS_IN_THE_LIBRARY = InitialValues()


def _logits(order: int, memory: float) -> Float[Array, " order"]:
    """Return those of alpha and delta, equal to each other: 1 - |q| is their product.

    So the input's weight is the root of that, and white noise leaves every component with the
    same variance.
    """
    shortest = 4.0
    lengths = jnp.geomspace(shortest, max(memory, shortest), order)
    share = lengths**-0.5
    return jnp.log(share / (1.0 - share))


def _output_weights(params: MegalodonForCausalLM) -> list[Array]:
    return [
        layer.weight
        for block in params.model.layers
        for layer in (block.attn.wh1, block.attn.wh2, block.ffn.fc2)
    ]
