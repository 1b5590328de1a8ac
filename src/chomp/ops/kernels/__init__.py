"""Operations as GPU kernels in Pallas (Triton lowering), for `model.kernels: pallas`."""

from chomp.ops.kernels.attention import attention_kernel
from chomp.ops.kernels.ema import ema_kernel

__all__ = ["attention_kernel", "ema_kernel"]
