"""A bigram model: an embedding and a projection, for trying everything that is not the model."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from chomp.models.base import LanguageModel
from chomp.ops import gather
from chomp.types import IGNORE_LABEL, Batch


class DummyParams(eqx.Module):
    """Parameters of the bigram model."""

    embed: eqx.nn.Embedding
    lm_head: eqx.nn.Linear


@dataclasses.dataclass(frozen=True)
class Dummy(LanguageModel):
    """Predict each token from the one before it; documents never leak into each other."""

    vocab_size: int
    dim: int

    def init(self, key: PRNGKeyArray) -> DummyParams:
        """Make fresh parameters."""
        embed_key, head_key = jax.random.split(key)
        return DummyParams(
            eqx.nn.Embedding(self.vocab_size, self.dim, key=embed_key),
            eqx.nn.Linear(self.dim, self.vocab_size, use_bias=False, key=head_key),
        )

    def loss(
        self, params: DummyParams, rows: Batch, key: PRNGKeyArray | None
    ) -> tuple[Float[Array, ""], Int[Array, ""]]:
        """Return the summed loss in nats and the number of targets of `rows` [batch, time]."""
        params = gather(params)
        logits = params.embed.weight[rows.input_ids[:, :-1]] @ params.lm_head.weight.T
        labels = jnp.asarray(rows.labels)[:, 1:]
        is_target = labels != IGNORE_LABEL
        losses = optax.softmax_cross_entropy_with_integer_labels(
            logits, jnp.where(is_target, labels, 0)
        )
        return jnp.where(is_target, losses, 0.0).sum(), is_target.sum()
