"""Initial values: the library's, in a program that is quick to compile, and others."""

from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray
from megalodon_jax import MegalodonConfig, MegalodonForCausalLM
from megalodon_jax.layers.complex_ema import ComplexEMA
from megalodon_jax.model import MegalodonBlock
from megalodon_jax.utils import reinit_linear_weights


def library_values(config: MegalodonConfig, key: PRNGKeyArray) -> MegalodonForCausalLM:
    """Return the parameters that `MegalodonForCausalLM(config, key=key)` has, to the bit.

    Blocks differ in their keys alone, so one loop makes them all: a program without it takes as
    long to compile for each of them (on a GPU 80 seconds for twelve).

    Args:
        config: of the model.
        key: as the library gets it.
    """
    model_key, *_ = jax.random.split(key, 3)
    *_, weights_key, blocks_key = jax.random.split(model_key, 4)
    count, mode = config.num_layers, config.init_mode
    dim = None if mode == "gaussian" else config.model_dim

    def block(keys: tuple[PRNGKeyArray, PRNGKeyArray]) -> MegalodonBlock:
        fresh = MegalodonBlock(config, 0, key=keys[0])
        return reinit_linear_weights(fresh, mode, keys[1], dim=dim)

    keys = jax.random.split(blocks_key, count), jax.random.split(weights_key, count)
    blocks = jax.lax.map(block, keys)
    # The library takes the scale of embeddings as a Python number, which is none while traced.
    with jax.ensure_compile_time_eval() if config.scale_emb else nullcontext():
        rest = MegalodonForCausalLM(replace(config, num_layers=1), key=key)
        whole = jax.eval_shape(lambda: MegalodonForCausalLM(config, key=jax.random.PRNGKey(0)))
    layers = tuple(_block_of(blocks, number) for number in range(count))
    # `rest` has all but the blocks: nothing else depends on their number.
    return eqx.tree_at(
        lambda p: (p.model.embed, p.model.layers, p.model.norm, p.lm_head),
        whole,
        (rest.model.embed, layers, rest.model.norm, rest.lm_head),
        is_leaf=lambda node: node is None,
    )


def _block_of(blocks: MegalodonBlock, number: int) -> MegalodonBlock:
    block = jax.tree.map(lambda leaf: leaf[number], blocks)
    if block.ffn.alpha is None:
        return block
    return eqx.tree_at(lambda b: b.ffn.alpha, block, block.ffn.alpha * 0.5**number)


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
