"""The losses of a block of tokens that continues a stream."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
from megalodon_jax import MegalodonForCausalLM


@eqx.filter_jit
def read_block(
    params: MegalodonForCausalLM,
    cache: Any,
    ids: Int[Array, "rows block"],
    labels: Int[Array, "rows block"],
) -> tuple[Float[Array, "rows block"], Bool[Array, "rows block"], Any]:
    """Return the loss of each label in nats, whether it is the likeliest token, and the cache.

    Args:
        params: of the library's model.
        cache: that of the blocks before; None at the beginning.
        ids: the tokens of the block.
        labels: the token after each.
    """
    logits, cache = params(ids, cache=cache, return_cache=True)
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    lost = -jnp.take_along_axis(log_p, labels[..., None], axis=-1)[..., 0]
    return lost, jnp.argmax(log_p, axis=-1) == labels, cache
