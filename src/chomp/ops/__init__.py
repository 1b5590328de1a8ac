"""Fast model operations: pure functions of arrays, with derivative rules of their own."""

from chomp.ops.complex_ema import Coefficients, complex_ema
from chomp.ops.ema_kernel import ema_kernel
from chomp.ops.gate import silu, silu_gate
from chomp.ops.linear_cross_entropy import linear_cross_entropy
from chomp.ops.shard import Shard, has_shards, is_shard, whole
from chomp.ops.span_attention import span_attention
from chomp.ops.timestep_norm import timestep_norm
from chomp.ops.window_attention import window_attention

__all__ = [
    "Coefficients",
    "Shard",
    "complex_ema",
    "ema_kernel",
    "has_shards",
    "is_shard",
    "linear_cross_entropy",
    "silu",
    "silu_gate",
    "span_attention",
    "timestep_norm",
    "whole",
    "window_attention",
]
