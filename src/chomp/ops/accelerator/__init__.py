"""The same operations for GPUs: no loop over time, few launches, few passes over memory.

XLA runs the turns of a loop on a GPU from the host, some microseconds each (jax issue 2491), so
these use products, short sums and prefixes of fixed shape instead. Activations keep the layout
[batch, time, dim]; derivative rules are written out, so that what is kept and the number formats
of cotangents are chosen rather than found by differentiation.
"""

from chomp.ops.accelerator.complex_ema import complex_ema
from chomp.ops.accelerator.embedding import embedding
from chomp.ops.accelerator.linear import linear
from chomp.ops.accelerator.rotary import rotated_pair
from chomp.ops.accelerator.timestep_norm import timestep_norm
from chomp.ops.accelerator.window_attention import window_attention

__all__ = [
    "complex_ema",
    "embedding",
    "linear",
    "rotated_pair",
    "timestep_norm",
    "window_attention",
]
