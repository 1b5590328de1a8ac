"""Fast model operations: pure functions of arrays, with derivative rules of their own."""

from chomp.ops import accelerator
from chomp.ops.complex_ema import Coefficients, complex_ema
from chomp.ops.gate import silu, silu_gate
from chomp.ops.kernels import attention_kernel, ema_kernel
from chomp.ops.linear_cross_entropy import linear_cross_entropy
from chomp.ops.shard import Cut, ParamShard, gather, has_shards, is_shard, summed_piece
from chomp.ops.span_attention import span_attention
from chomp.ops.timestep_norm import timestep_norm

__all__ = [
    "Coefficients",
    "Cut",
    "ParamShard",
    "accelerator",
    "attention_kernel",
    "complex_ema",
    "ema_kernel",
    "gather",
    "has_shards",
    "is_shard",
    "linear_cross_entropy",
    "silu",
    "silu_gate",
    "span_attention",
    "summed_piece",
    "timestep_norm",
]
