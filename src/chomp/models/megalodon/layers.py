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

from chomp.ops import Coefficients, accelerator, complex_ema, ema_kernel, timestep_norm


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


def moving_average(
    layer: ComplexEMA,
    x: Float[Array, "batch time dim"],
    documents: SegmentMetadata | None,
    platform: str,
    kernels: str,
) -> Float[Array, "batch time dim"]:
    """Return the average plus the weighted input, as `ComplexEMA` does; its state is not kept.

    On accelerators padding isn't set to zero: it is a document of its own, which nothing that is
    scored can see, and a mask would cost two passes over the activations.
    """
    skip = layer.omega.astype(jnp.float32)
    if kernels == "pallas":
        starts = None if documents is None else documents.boundaries
        return ema_kernel(x, coefficients(layer), skip, starts)
    if platform != "cpu":
        positions = None if documents is None else documents.local_positions
        return accelerator.complex_ema(x, coefficients(layer), skip, positions)
    positions = None
    if documents is not None:
        positions = documents.local_positions
        x = jnp.where(documents.valid[..., None], x, 0.0)
    return complex_ema(x, coefficients(layer), skip, positions).astype(x.dtype)


def time_norm(
    layer: TimestepNorm,
    x: Float[Array, "batch time dim"],
    documents: SegmentMetadata | None,
    platform: str,
) -> Float[Array, "batch time dim"]:
    """Return the normalized input as `TimestepNorm` does; on a CPU zero at padding."""
    scale = layer.weight + 1.0
    sizes = {"groups": layer.num_groups, "eps": layer.eps}
    positions = None if documents is None else documents.local_positions
    if platform != "cpu":
        return accelerator.timestep_norm(x, scale, layer.bias, **sizes, positions=positions)
    if documents is None:
        return timestep_norm(x, scale, layer.bias, **sizes)
    x = jnp.where(documents.valid[..., None], x, 0.0)
    normal = timestep_norm(
        x, scale, layer.bias, **sizes, runs=documents.run_ids, positions=positions
    )
    return jnp.where(documents.valid[..., None], normal, 0.0)


class FastComplexEMA(eqx.Module):
    """`ComplexEMA` by `moving_average`, in the library's own attention block."""

    layer: ComplexEMA
    platform: str = eqx.field(static=True)
    kernels: str = eqx.field(static=True)

    def __call__(
        self,
        x: Float[Array, "batch dim time"],
        *,
        _segment_metadata: SegmentMetadata | None = None,
        **unused: Any,
    ) -> tuple[Float[Array, "batch dim time"], None]:
        """Return the average plus the weighted input; there is no state to return."""
        average = moving_average(
            self.layer, x.swapaxes(1, 2), _segment_metadata, self.platform, self.kernels
        )
        return average.swapaxes(1, 2), None


class FastTimestepNorm(eqx.Module):
    """`TimestepNorm` by `time_norm`, in the library's own attention block."""

    layer: TimestepNorm
    platform: str = eqx.field(static=True)

    def __call__(
        self,
        x: Float[Array, "batch time dim"],
        *,
        _segment_metadata: SegmentMetadata | None = None,
        **unused: Any,
    ) -> tuple[Float[Array, "batch time dim"], None]:
        """Return the normalized input, zero at padding; there is no state to return."""
        return time_norm(self.layer, x, _segment_metadata, self.platform), None
