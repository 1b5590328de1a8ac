"""Megalodon (Ma et al., 2024, arXiv:2404.08801) as megalodon-jax defines it."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray
from megalodon_jax import MegalodonConfig, MegalodonForCausalLM

from chomp.config import ModelConfig
from chomp.types import Batch

# Above this many logits (1 GiB in float32) the library's bounded loss head is used: it projects
# a chunk of tokens at a time and computes the projection again in the backward pass.
LOGITS_AT_ONCE = 1 << 28
LOSS_CHUNK = 1024


def megalodon_config(config: ModelConfig) -> MegalodonConfig:
    """Translate the `model` section into the library's own configuration."""
    own_names = {field.name for field in dataclasses.fields(MegalodonConfig)}
    values = {name: value for name, value in config.model_dump().items() if name in own_names}
    for name in ("param_dtype", "compute_dtype", "accum_dtype"):
        values[name] = jnp.dtype(values[name])
    return MegalodonConfig(**values, attention_softmax_dtype=jnp.dtype(config.softmax_dtype))


@dataclasses.dataclass(frozen=True)
class Megalodon:
    """The library's model; its parameters are the library's own module, paths included."""

    config: MegalodonConfig
    isolate_documents: bool

    def init(self, key: PRNGKeyArray) -> MegalodonForCausalLM:
        """Make fresh parameters."""
        return MegalodonForCausalLM(self.config, key=key)

    def loss(
        self, params: MegalodonForCausalLM, rows: Batch, key: PRNGKeyArray | None
    ) -> tuple[Float[Array, ""], Int[Array, ""]]:
        """Return the summed loss in nats and the number of targets of `rows` [batch, time].

        `attention_mask` isn't passed on: rows are padded at their end only, where nothing that
        is scored can see the padding, and the unmasked path of the library is the faster one.
        """
        batch, time = rows.input_ids.shape
        bounded = batch * time * self.config.effective_output_size > LOGITS_AT_ONCE
        loss, targets = params.compute_loss(
            jnp.asarray(rows.input_ids),
            jnp.asarray(rows.labels),
            segment_ids=jnp.asarray(rows.segment_ids) if self.isolate_documents else None,
            deterministic=key is None,
            key=key,
            reduction="sum",
            return_valid_count=True,
            loss_chunk_size=LOSS_CHUNK if bounded else None,
        )
        return loss, targets
