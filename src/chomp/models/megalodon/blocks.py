"""Stand-ins for the library's attention and feed-forward blocks, for training and evaluation.

As in `chomp.models.megalodon.layers`, each holds the layer it replaces and takes the same call. The
products are of matrices [batch * time, dim]: with a batch axis XLA transposes activations for the
gradient of a weight, without one it doesn't.
"""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, PRNGKeyArray
from megalodon_jax.layers.attention import MegalodonAttention, NormalizedFFN
from megalodon_jax.layers.rotary import RotaryTable
from megalodon_jax.layers.segments import SegmentMetadata
from megalodon_jax.ops import inverted_dropout, linear_3d

from chomp.models.megalodon.layers import moving_average, time_norm
from chomp.ops import accelerator, attention_kernel, silu, silu_gate, span_attention

SAVED = "activation"
"""Name, for a `jax.checkpoint` policy, of what is not cheap to compute again."""


class FastAttention(eqx.Module):
    """`MegalodonAttention` without dropout of attention weights."""

    layer: MegalodonAttention
    platform: str = eqx.field(static=True)
    """That the program is for: loops suit `cpu`, windows accelerators."""
    kernels: str = eqx.field(static=True)
    """What computes on accelerators: `xla` or `pallas`."""

    def __call__(
        self,
        x: Float[Array, "batch time dim"],
        *,
        deterministic: bool = True,
        key: PRNGKeyArray | None = None,
        _segment_metadata: SegmentMetadata | None = None,
        _rotary_table: RotaryTable | None = None,
        **unused: Any,
    ) -> tuple[Float[Array, "batch time dim"], None]:
        """Return the block's output with the residual added; there is no cache to return."""
        layer, documents = self.layer, _segment_metadata
        batch, time, dim = x.shape
        assert _rotary_table is not None, "the model makes one for all layers"
        drop = functools.partial(_drop, deterministic, layer.hidden_dropout)
        _, mixed_key, gated_key, out_key = (None,) * 4 if key is None else jax.random.split(key, 4)
        project = functools.partial(_project, platform=self.platform, accum_dtype=layer.accum_dtype)
        x = x.astype(layer.compute_dtype)
        normal = time_norm(layer.timenorm, x, documents, self.platform)
        average = moving_average(layer.cema, normal, documents, self.platform, self.kernels)
        average = checkpoint_name(average, SAVED)
        mixed = drop(layer.rmsnorm(average), mixed_key).reshape(-1, dim)
        values = silu(project(layer.wv, normal.reshape(-1, dim)))
        q, k = _queries_and_keys(
            layer, project, mixed.reshape(batch, time, dim), _rotary_table, self.platform
        )
        values = values.reshape(batch, time, layer.num_heads, -1).swapaxes(1, 2)
        starts = _starts(batch, time, layer.inner.chunk_size, documents)
        if self.platform == "cpu":
            out = span_attention(q, k, values, starts)
        elif self.kernels == "pallas":
            out = attention_kernel(q, k, values, starts, layer.inner.chunk_size)
        else:  # a document's chunk may begin in the row's chunk before
            before = int(documents is not None)
            out = accelerator.window_attention(q, k, values, starts, layer.inner.chunk_size, before)
        out = out.swapaxes(1, 2).reshape(batch * time, -1)
        gated = drop(silu_gate(project(layer.wr, mixed), out), gated_key)
        h = project(layer.wh1, mixed) + project(layer.wh2, gated)
        return _drop(deterministic, layer.dropout, h, out_key).reshape(x.shape) + x, None


def _project(linear: eqx.nn.Linear, x: Array, *, platform: str, accum_dtype: Any) -> Array:
    if platform == "cpu":
        result = linear_3d(linear, x, x.dtype, accum_dtype)
    else:
        result = accelerator.linear(x, linear.weight, linear.bias)
    return checkpoint_name(result, SAVED)


def _drop(deterministic: bool, rate: float, x: Array, key: PRNGKeyArray | None) -> Array:
    if deterministic or rate == 0.0:
        return x
    assert key is not None, "dropout needs a key"
    return inverted_dropout(x, rate, key)


def _starts(batch: int, time: int, chunk: int, documents: SegmentMetadata | None) -> Array:
    """Return the first position that each token sees: its chunk of its document begins there."""
    positions = jnp.arange(time)
    if documents is None:
        return jnp.broadcast_to(positions // chunk * chunk, (batch, time))
    starts = positions - documents.local_positions % chunk
    return jnp.where(documents.valid, starts, positions + 1)


def _queries_and_keys(
    layer: MegalodonAttention, project: Any, mixed: Array, table: RotaryTable, platform: str
) -> tuple[Array, Array]:
    """Return rotated queries and keys [batch, heads, time, dim].

    The library turns pairs of adjacent features. Here the features of a head are reordered, all
    first ones of the pairs before all second ones, by reordering the weights: q k doesn't change.
    """
    batch, time, dim = mixed.shape
    heads = layer.num_heads

    def halves(weights: Array) -> Array:
        """Reorder [heads * pairs * 2, ...] to [heads * 2 * pairs, ...]."""
        pairs = weights.reshape(heads, -1, 2, *weights.shape[1:])
        return pairs.swapaxes(1, 2).reshape(weights.shape)

    linear = jax.tree.map(halves, layer.wz)
    z = project(linear, mixed.reshape(-1, dim)).reshape(batch, time, heads, 2, -1)
    scale, shift = (
        jax.vmap(halves)(a.astype(jnp.float32)).reshape(2, heads, 2, -1)
        for a in (layer.gamma, layer.beta)
    )
    scale = (scale + 1.0) * layer.head_dim**-0.5
    if platform != "cpu":
        cos, sin = (part[:, :, 0] for part in table)
        return accelerator.rotated_pair(z, scale, shift, cos, sin, layer.norm_eps)
    z = z.transpose(3, 0, 2, 1, 4).astype(jnp.float32)
    square = jnp.square(z).mean(axis=(0, -1), keepdims=True)
    first, second = z * jax.lax.rsqrt(square + layer.norm_eps)
    scale, shift = (a[:, :, :, None].transpose(2, 0, 1, 3, 4) for a in (scale, shift))
    cos, sin = (part.swapaxes(1, 2) for part in table)

    def turned(which: int) -> Array:
        a = first * scale[0, which] + shift[0, which]
        b = second * scale[1, which] + shift[1, which]
        return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1).astype(mixed.dtype)

    return turned(0), turned(1)


class FastFeedForward(eqx.Module):
    """`NormalizedFFN` on matrices."""

    layer: NormalizedFFN
    platform: str = eqx.field(static=True)
    """That the program is for."""

    def __call__(
        self,
        x: Float[Array, "batch time dim"],
        residual_base: Float[Array, "batch time dim"] | None = None,
        deterministic: bool = True,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "batch time dim"]:
        """Return the block's output with the residual added."""
        layer = self.layer
        x = x.astype(layer.compute_dtype)
        residual = x if residual_base is None else residual_base.astype(layer.compute_dtype)
        hidden_key = out_key = key
        if key is not None and not deterministic and layer.hidden_dropout > 0.0:
            hidden_key, out_key = jax.random.split(key)
        project = functools.partial(_project, platform=self.platform, accum_dtype=layer.accum_dtype)
        h = layer.norm(x).reshape(-1, x.shape[-1])
        if layer.fc3 is None:
            h = silu(project(layer.fc1, h))
        else:
            h = silu_gate(project(layer.fc1, h), project(layer.fc3, h))
        h = _drop(deterministic, layer.hidden_dropout, h, hidden_key)
        out = _drop(deterministic, layer.dropout, project(layer.fc2, h), out_key)
        if layer.alpha is not None:
            out = out * layer.alpha.astype(out.dtype)
        return residual + out.reshape(x.shape)
