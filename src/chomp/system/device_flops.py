"""The rate of a device's matrix products: by its data sheet, and measured."""

import re
import time
from collections.abc import Callable

# Dense bfloat16 with float32 sums, in TFLOP/s, by the name that JAX gives the device. Data sheets
# print twice as much for sparse matrices. Names match whole: a laptop's or a cut-down GPU of a
# similar name is much slower, and a rate that is measured is better than a wrong one.
PEAK_TFLOPS: tuple[tuple[str, float], ...] = (
    # NVIDIA's data sheets, the row "BFLOAT16 Tensor Core": H100, H200 and HGX B200.
    (r"NVIDIA B200", 2250.0),
    (r"NVIDIA H200", 989.5),
    (r"NVIDIA H100 80GB HBM3", 989.5),
    (r"NVIDIA H100 NVL", 835.5),
    (r"NVIDIA H100 PCIe", 756.5),
    # NVIDIA's data sheets: A100, A40, A10; L40S, L40, L4.
    (r"NVIDIA A100[- ].*", 312.0),
    (r"NVIDIA A40", 149.7),
    (r"NVIDIA A10", 125.0),
    (r"NVIDIA L40S", 362.0),
    (r"NVIDIA L40", 181.0),
    (r"NVIDIA L4", 121.0),
    # NVIDIA's whitepapers, "Peak BF16 Tensor TFLOPS with FP32 Accumulate": Ampere GA102 2.1,
    # Ada 2.1, RTX Blackwell 1.1.
    (r"NVIDIA RTX A6000", 154.8),
    (r"NVIDIA (GeForce )?RTX 3090", 71.0),
    (r"NVIDIA (GeForce )?RTX 4090", 165.2),
    (r"NVIDIA (GeForce )?RTX 5080", 112.6),
    (r"NVIDIA (GeForce )?RTX 5090", 209.5),
    # Google Cloud's page of TPU v5e.
    (r"TPU v5 lite", 197.0),
)


SIZE = (2048, 8192)
"""Of the factors on a CPU, and elsewhere: enough to keep the device busy."""
QUICK_SIZE = (1024, 4096)
"""The same for a run that measures beside its work: some milliseconds, memory of a step."""


def peak_flops(device: str) -> float | None:
    """Return a device's peak rate in FLOP/s, dense bfloat16; None if it isn't known."""
    for pattern, tflops in PEAK_TFLOPS:
        if re.fullmatch(pattern, device):
            return tflops * 1e12
    return None


def matmul_rate(dtype: str, size: tuple[int, int] = SIZE) -> Callable[[], float]:
    """Return a function that measures the rate of one large matrix product, in FLOP/s.

    Args:
        dtype: the factors'; the precision is the one that the model multiplies them in.
        size: rows of the square factors on a CPU, and elsewhere.
    """
    import jax
    import jax.numpy as jnp
    from megalodon_jax.ops import dot_precision

    width = size[jax.default_backend() != "cpu"]
    precision = dot_precision(jnp.dtype(dtype))
    product = jax.jit(lambda a: jnp.matmul(a, a, precision=precision))
    factor = jnp.full((width, width), 1.0 / width, dtype)
    jax.block_until_ready(product(factor))

    def measure() -> float:
        start = time.perf_counter()
        jax.block_until_ready(product(factor))
        return 2 * width**3 / (time.perf_counter() - start)

    return measure
