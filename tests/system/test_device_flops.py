import time

import jax
import jax.numpy as jnp
import pytest

from chomp.system.device_flops import matmul_rate, peak_flops


@pytest.mark.parametrize(
    ("device", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989.5),
        ("NVIDIA H100 PCIe", 756.5),
        ("NVIDIA A100-SXM4-40GB", 312),
        ("NVIDIA A100 80GB PCIe", 312),
        ("NVIDIA L4", 121),
        ("NVIDIA GeForce RTX 5090", 209.5),
        ("NVIDIA RTX 5090", 209.5),
    ],
)
def test_known_devices_have_their_data_sheets_peak(device: str, tflops: float):
    assert peak_flops(device) == tflops * 1e12


@pytest.mark.parametrize(
    "device",
    ["cpu", "NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA GeForce RTX 3090 Ti", "NVIDIA A10G"],
)
def test_others_are_not_guessed(device: str):
    assert peak_flops(device) is None


def test_the_rate_is_that_of_a_product_of_this_size():
    size = 512
    factor = jnp.ones((size, size))
    product = jax.jit(jnp.matmul)
    jax.block_until_ready(product(factor, factor))
    measure, here = matmul_rate("float32", (size, size)), []
    there = []
    for _ in range(20):
        start = time.perf_counter()
        jax.block_until_ready(product(factor, factor))
        here.append(2 * size**3 / (time.perf_counter() - start))
        there.append(measure())
    # The best of each, in turn: whatever else the machine does.
    assert 0.5 < max(there) / max(here) < 2
