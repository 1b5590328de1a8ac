"""Megalodon (Ma et al., 2024, arXiv:2404.08801) as megalodon-jax defines it."""

import dataclasses
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray
from megalodon_jax import MegalodonConfig, MegalodonForCausalLM
from megalodon_jax.ops import dot_precision

from chomp.config import ModelConfig
from chomp.models.base import LanguageModel
from chomp.models.megalodon.flops import model_flops_per_token
from chomp.models.megalodon.forward import hidden_states
from chomp.models.megalodon.initial import AS_IN_THE_LIBRARY, InitialValues, library_values
from chomp.models.megalodon.parameters import first_axis_is_cut, kind_of
from chomp.ops import gather, linear_cross_entropy
from chomp.types import IGNORE_LABEL, Batch, ParameterKind


def megalodon_config(config: ModelConfig) -> MegalodonConfig:
    """Translate the `model` section into the library's own configuration."""
    own_names = {field.name for field in dataclasses.fields(MegalodonConfig)}
    values = {name: value for name, value in config.model_dump().items() if name in own_names}
    for name in ("param_dtype", "compute_dtype", "accum_dtype"):
        values[name] = jnp.dtype(values[name])
    return MegalodonConfig(**values, attention_softmax_dtype=jnp.dtype(config.softmax_dtype))


@dataclasses.dataclass(frozen=True)
class Megalodon(LanguageModel):
    """The library's model; its parameters are the library's own module, paths included.

    Attributes:
        config: the library's configuration.
        isolate_documents: restart attention, averages and norms at each document of a row.
        fast_ops: compute with `chomp.ops` where the library is slow; False: as the library does.
        platform: that the programs are for; None: the one that JAX runs on.
        kernels: `pallas` for chomp's own on NVIDIA GPUs, else the compiler's.
        initial: values in place of the library's.
    """

    config: MegalodonConfig
    isolate_documents: bool
    fast_ops: bool = True
    platform: str | None = None
    kernels: str = "xla"
    initial: InitialValues = AS_IN_THE_LIBRARY
    can_generate: ClassVar[bool] = True

    def init(self, key: PRNGKeyArray) -> MegalodonForCausalLM:
        """Make fresh parameters."""
        return self.initial.of(library_values(self.config, key))

    def cast_dtypes(self, params: MegalodonForCausalLM) -> Any:
        """Return the dtype that the model casts each parameter to before it uses it.

        Matrices and biases of linear layers, and the embedding unless it is scaled in its own
        dtype first, are cast to `compute_dtype`; norms, averages and the scales of queries and
        keys are computed with as they are kept.
        """
        embeddings = (eqx.nn.Embedding,) if params.model.scale == 1.0 else ()
        cast = (eqx.nn.Linear, *embeddings)

        def dtypes(node: Any) -> Any:
            as_kept = not isinstance(node, cast)
            return jax.tree.map(
                lambda leaf: leaf.dtype if as_kept else self.config.compute_dtype, node
            )

        return jax.tree.map(dtypes, params, is_leaf=lambda node: isinstance(node, cast))

    def parameter_kind(self, path: str, shape: tuple[int, ...]) -> ParameterKind:
        """Return what a parameter is, by the library's names."""
        return kind_of(path, shape)

    def shard_axis(self, path: str, shape: tuple[int, ...]) -> int | None:
        """Return 0 for weights, embeddings and the moving average's coefficients."""
        return 0 if first_axis_is_cut(path) else None

    @property
    def product_dtype(self) -> str:
        """The number format that matrix products are computed in."""
        return jnp.dtype(self.config.compute_dtype).name

    @property
    def flops_per_token(self) -> int:
        """Operations of matrix products, forward and backward, per position of a row."""
        return model_flops_per_token(self.config)

    def loss(
        self, params: MegalodonForCausalLM, rows: Batch, key: PRNGKeyArray | None
    ) -> tuple[Float[Array, ""], Int[Array, ""]]:
        """Return the summed loss in nats and the number of targets of `rows` [batch, time].

        `attention_mask` isn't passed on: rows are padded at their end only, where nothing that
        is scored can see the padding, and the unmasked path of the library is the faster one.
        """
        ids, labels = jnp.asarray(rows.input_ids), jnp.asarray(rows.labels)
        segments = jnp.asarray(rows.segment_ids) if self.isolate_documents else None
        if not self.fast_ops:
            loss, targets = gather(params).compute_loss(
                ids,
                labels,
                segment_ids=segments,
                deterministic=key is None,
                key=key,
                reduction="sum",
                return_valid_count=True,
            )
            return loss, targets
        platform = self.platform or jax.default_backend()
        hidden = hidden_states(params, ids, segments, key, platform, self.kernels)
        return self._head_loss(params, hidden, labels, segments, platform)

    def _head_loss(
        self,
        params: MegalodonForCausalLM,
        hidden: Float[Array, "batch time dim"],
        labels: Int[Array, "batch time"],
        segments: Int[Array, "batch time"] | None,
        platform: str,
    ) -> tuple[Float[Array, ""], Int[Array, ""]]:
        """Score each position's prediction of the next; the last one of a row has none."""
        labels = jnp.pad(labels[:, 1:], ((0, 0), (0, 1)), constant_values=IGNORE_LABEL)
        is_target = labels != IGNORE_LABEL
        if segments is not None:
            following = jnp.pad(segments[:, 1:], ((0, 0), (0, 1)))
            is_target &= (segments == following) & (following > 0)
        head = params.model.embed if params.lm_head is None else params.lm_head
        loss = linear_cross_entropy(
            hidden.reshape(-1, hidden.shape[-1]).astype(self.config.compute_dtype),
            gather(head).weight,
            jnp.where(is_target, labels, 0).reshape(-1),
            is_target.reshape(-1),
            dot_precision(self.config.compute_dtype),
            accelerator=platform != "cpu",
        )
        return loss, is_target.sum()
