"""python compile_ema_kernel.py CAPABILITY: compile the average and its derivatives for a GPU.

A program of its own, as JAX looks for the compiler's plugin when it starts.
"""

import sys

import jax
import jax.numpy as jnp
from jax.experimental import topologies

from chomp.ops import Coefficients, ema_kernel

# What XLA reads of openxla/xla's GpuTargetConfigProto: any GPU of the capability will do here.
TARGET = """
gpu_device_info {{
  name: "GPU"
  device_vendor: "NVIDIA Corporation"
  cuda_compute_capability {{ major: {major} minor: {minor} }}
  core_count: 128
  fpus_per_core: 128
  clock_rate_ghz: 1.5
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: 1536
  thread_dim_limit_x: 1024
  thread_dim_limit_y: 1024
  thread_dim_limit_z: 64
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 101376
  shared_memory_per_core: 102400
  device_address_bits: 64
  device_memory_size: 25000000000
  memory_bandwidth: 1000000000000
  l2_cache_size: 50000000
  driver_version: "13.0.0"
  runtime_version: "13.0.0"
  compile_time_toolkit_version: "13.0.0"
  dnn_version: "9.10.0"
}}
platform_name: "CUDA"
runtime_version {{ major: 13 }}
dnn_version_info {{ major: 9 minor: 10 }}
device_description_str: "GPU"
"""

# Batch, time, dim, order, dtype, documents: full blocks of channels with 8 orders in a lane; some
# channels and tokens too many, with 2 orders in a lane.
CASES = [
    (64, 16, 640, 8, "bfloat16", True),
    (1, 21, 13, 16, "float32", True),
    (1, 16, 12, 5, "bfloat16", False),
]


def main(capability: str) -> None:
    major, minor = capability.split(".")
    devices = topologies.get_topology_desc(
        "", platform="cuda", target_config=TARGET.format(major=major, minor=minor), topology="1x1x1"
    ).devices
    mesh = jax.sharding.Mesh(devices, ("x",))
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())

    def shape(sizes: tuple[int, ...], dtype: str = "float32") -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(sizes, jnp.dtype(dtype), sharding=everywhere)

    def both(x, c, skip, starts):
        result, pull = jax.vjp(lambda x, c, skip: ema_kernel(x, c, skip, starts), x, c, skip)
        return result, pull(result)

    for batch, time, dim, order, dtype, documents in CASES:
        x, coefficient = shape((batch, time, dim), dtype), shape((dim, order))
        starts = shape((batch, time), "bool") if documents else None
        c = Coefficients(*[coefficient] * 5)
        jax.jit(both).lower(x, c, shape((dim,)), starts).compile()


if __name__ == "__main__":
    main(sys.argv[1])
