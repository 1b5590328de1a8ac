"""Stand-ins for the library's slow layers, for training and evaluation.

Each holds the layer it replaces, so parameters and gradients keep the library's paths, and takes
the same call. Caches belong to generation, which uses the library's own layers.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from megalodon_jax.layers.complex_ema import ComplexEMA
from megalodon_jax.layers.segments import SegmentMetadata
from megalodon_jax.layers.timestep_norm import TimestepNorm

from chomp.ops import Coefficients, complex_ema, ema_kernel, timestep_norm


def coefficients(layer: ComplexEMA) -> Coefficients:
    """Return the coefficients that the library's parameters stand for, in float32."""
    alpha, delta, theta = (
        jax.nn.sigmoid(array.astype(jnp.float32)[..., 0])
        for array in (layer.alpha, layer.delta, layer.theta)
    )
    orders = jnp.arange(1, layer.ndim + 1, dtype=jnp.float32)
    return Coefficients(
        p=alpha,
        magnitude=1.0 - alpha * delta,
        phase=orders * theta * (2.0 * jnp.pi / layer.ndim),
        gamma_real=layer.gamma_real.astype(jnp.float32) * layer.scale,
        gamma_imag=layer.gamma_imag.astype(jnp.float32) * layer.scale,
    )


class FastComplexEMA(eqx.Module):
    """`ComplexEMA` by `chomp.ops.complex_ema`, or `ema_kernel` for `kernels` of `pallas`."""

    layer: ComplexEMA
    kernels: str = eqx.field(static=True)

    def __call__(
        self,
        x: Float[Array, "batch dim time"],
        *,
        _segment_metadata: SegmentMetadata | None = None,
        **unused: Any,
    ) -> tuple[Float[Array, "batch dim time"], None]:
        """Return the average plus the weighted input; there is no state to return."""
        if self.kernels == "pallas":
            return self._by_kernel(x, _segment_metadata), None
        values, runs = x.astype(jnp.float32), None
        if _segment_metadata is not None:
            runs = _segment_metadata.run_ids
            values = jnp.where(_segment_metadata.valid[:, None, :], values, 0.0)
        average = complex_ema(values, coefficients(self.layer), runs)
        skip = values * self.layer.omega.astype(jnp.float32)[:, None]
        return (average + skip).astype(x.dtype), None

    def _by_kernel(
        self, x: Float[Array, "batch dim time"], documents: SegmentMetadata | None
    ) -> Float[Array, "batch dim time"]:
        values, starts = x.swapaxes(1, 2), None
        if documents is not None:
            starts = documents.boundaries
            values = jnp.where(documents.valid[..., None], values, 0.0)
        average = ema_kernel(values, coefficients(self.layer), self.layer.omega, starts)
        return average.swapaxes(1, 2)


class FastTimestepNorm(eqx.Module):
    """`TimestepNorm` by `chomp.ops.timestep_norm`."""

    layer: TimestepNorm

    def __call__(
        self,
        x: Float[Array, "batch time dim"],
        *,
        _segment_metadata: SegmentMetadata | None = None,
        **unused: Any,
    ) -> tuple[Float[Array, "batch time dim"], None]:
        """Return the normalized input, zero at padding; there is no state to return."""
        layer, documents = self.layer, _segment_metadata
        if documents is not None:
            x = jnp.where(documents.valid[..., None], x, 0.0)
        normal = timestep_norm(
            x,
            layer.weight + 1.0,
            layer.bias,
            groups=layer.num_groups,
            eps=layer.eps,
            runs=None if documents is None else documents.run_ids,
            positions=None if documents is None else documents.local_positions,
        )
        if documents is not None:
            normal = jnp.where(documents.valid[..., None], normal, 0.0)
        return normal, None
