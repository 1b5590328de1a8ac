"""The forward pass of training and evaluation, with fast layers in place of the library's."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray
from megalodon_jax import MegalodonForCausalLM
from megalodon_jax.layers.attention import ChunkedAttention as InnerAttention
from megalodon_jax.layers.attention import MegalodonAttention, NormalizedFFN
from megalodon_jax.layers.complex_ema import ComplexEMA
from megalodon_jax.layers.rotary import RotaryTable
from megalodon_jax.layers.segments import SegmentMetadata
from megalodon_jax.layers.timestep_norm import TimestepNorm
from megalodon_jax.model import MegalodonBlock
from megalodon_jax.ops import inverted_dropout

from chomp.models.megalodon.blocks import SAVED, FastAttention, FastFeedForward
from chomp.models.megalodon.layers import FastComplexEMA, FastTimestepNorm, time_norm
from chomp.ops import accelerator, gather, has_shards
from chomp.ops.span_attention import SAVED as ATTENTION

# None: all, one program text per layer; but one at a time where a layer's parameters are fetched
# from other devices when it needs them. Fewer than all make the layers a scan over their stacked
# parameters, whose backward pass finds what products, averages and attention gave, and computes
# norms, gates and masks (and fetches parameters) again: half the scratch memory and one layer's
# compile time, but slower on a CPU (`scripts/step_parts.py --depth`, docs/step.md).
LAYERS_AT_ONCE: int | None = None


def hidden_states(
    params: MegalodonForCausalLM,
    ids: Int[Array, "batch time"],
    segments: Int[Array, "batch time"] | None,
    key: PRNGKeyArray | None,
    platform: str,
    kernels: str,
) -> Float[Array, "batch time dim"]:
    """Return what the head scores, as the library's model does.

    Args:
        params: the library's model.
        ids: tokens; their range is not checked here.
        segments: numbers of the documents, 0 at padding; None: one stream.
        key: of dropout, which it switches on; the same key drops the same values as there.
        platform: that the program is for, in JAX's words.
        kernels: `pallas` for chomp's own, else the compiler's.
    """
    model, config = params.model, params.config
    batch, time = ids.shape
    depth = len(model.layers)
    embedding_key, layers_key = (None, None) if key is None else jax.random.split(key)
    weight = gather(model.embed).weight
    x = weight[ids] if platform == "cpu" else accelerator.embedding(weight, ids)
    if model.scale != 1.0:
        x = x * jnp.asarray(model.scale, x.dtype)
    x = x.astype(config.compute_dtype)
    if embedding_key is not None and config.dropout > 0.0:
        x = inverted_dropout(x, config.dropout, embedding_key)
    documents, table = model._prepare_call_metadata((batch, time), segments, None, None)
    if platform == "cpu" and depth and model.layers[0].attn.inner.attention_window is None:
        table = _rotary_table(model.layers[0].attn.inner, documents, time)

    def block(layer: MegalodonBlock, x: Array, layer_key: PRNGKeyArray | None) -> Array:
        # The library's own attention, where it is used, compares raw ids as well.
        out, _ = _with_fast_layers(gather(layer), key is None, platform, kernels)(
            x,
            segment_ids=segments,
            deterministic=key is None,
            key=layer_key,
            _segment_metadata=documents,
            _rotary_table=table,
        )
        return out

    is_cut = has_shards(model.layers)
    # Only a loop keeps XLA from fetching all layers' parameters first: even before the first
    # microbatch, since they don't change.
    at_once = LAYERS_AT_ONCE or (1 if is_cut else depth)
    if config.use_checkpoint and key is not None:
        block = jax.checkpoint(block)
    elif at_once < depth or is_cut:
        kept = jax.checkpoint_policies.save_only_these_names(SAVED, ATTENTION)
        # Within a scan nothing merges the second computation with the first.
        block = jax.checkpoint(block, policy=kept, prevent_cse=False)
    keys = None if layers_key is None else jax.random.split(layers_key, depth)
    layers = jax.tree.map(lambda *leaves: jnp.stack(leaves), *model.layers)
    x, _ = jax.lax.scan(
        lambda x, item: (block(item[0], x, item[1]), None), x, (layers, keys), unroll=at_once
    )
    return time_norm(gather(model.norm), x, documents, platform)


def _rotary_table(
    attention: InnerAttention, documents: SegmentMetadata | None, time: int
) -> RotaryTable:
    """Return the factors of each position in its chunk, looked up in a constant.

    A sine costs as much as ten other operations, and XLA computes it again in every loop that
    needs it: the CPU compiler drops the library's optimization barrier before it fuses.
    """
    rotary, chunk = attention.rotary, attention.chunk_size
    half = rotary.dim // 2
    frequencies = np.float32(rotary.base) ** -(np.arange(half, dtype=np.float32) / half)
    angles = np.arange(chunk, dtype=np.float32)[:, None] * frequencies
    positions = jnp.arange(time)[None] if documents is None else documents.local_positions
    cos, sin = (
        jnp.asarray(part(angles))[positions % chunk][:, :, None] for part in (np.cos, np.sin)
    )
    return RotaryTable(cos, sin)


def _with_fast_layers(
    block: MegalodonBlock, deterministic: bool, platform: str, kernels: str
) -> MegalodonBlock:
    """Return the block with fast layers in place.

    Dropout of attention weights and sliding windows are left to the library's own attention.
    """
    inner = block.attn.inner
    stand_ins: dict[type, Callable[..., Any]] = {
        ComplexEMA: functools.partial(FastComplexEMA, platform=platform, kernels=kernels),
        TimestepNorm: functools.partial(FastTimestepNorm, platform=platform),
        NormalizedFFN: functools.partial(FastFeedForward, platform=platform),
    }
    if (deterministic or inner.attention_dropout == 0.0) and inner.attention_window is None:
        stand_ins[MegalodonAttention] = functools.partial(
            FastAttention, platform=platform, kernels=kernels
        )

    def replace(node: Any) -> Any:
        stand_in = stand_ins.get(type(node))
        return node if stand_in is None else stand_in(node)

    return jax.tree.map(replace, block, is_leaf=lambda node: type(node) in stand_ins)
