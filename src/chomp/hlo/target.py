"""Devices that aren't there, for the compiler to compile for."""

import logging
import os
from collections.abc import Sequence
from typing import Any

from chomp.errors import ConfigError
from chomp.hlo.accelerators import Accelerator, Chip
from chomp.system.jax_runtime import GPU_COMPILER, is_installed

# The compiler for NVIDIA's GPUs, its assembler, and the device functions that it links.
WHEELS = (GPU_COMPILER, "nvidia-cuda-nvcc", "nvidia-nvvm")
INSTALL = "pip install 'chomp[plan]'"

# The fields that XLA reads, as its messages GpuTargetConfigProto and GpuDeviceInfoProto name them
# (openxla/xla, stream_executor/device_description.proto), and the limits that all these GPUs share.
_CONFIG = """
gpu_device_info {{
  name: "{name}"
  device_vendor: "NVIDIA Corporation"
  cuda_compute_capability {{ major: {major} minor: {minor} feature_extension: {extension} }}
  core_count: {chip.cores}
  fpus_per_core: {chip.lanes}
  clock_rate_ghz: {chip.clock}
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: {chip.threads}
  thread_dim_limit_x: 1024
  thread_dim_limit_y: 1024
  thread_dim_limit_z: 64
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: {optin}
  shared_memory_per_core: {chip.shared}
  device_address_bits: 64
  device_memory_size: {memory}
  memory_bandwidth: {bandwidth}
  l2_cache_size: {chip.cache}
  driver_version: "13.0.0"
  runtime_version: "13.0.0"
  compile_time_toolkit_version: "13.0.0"
  dnn_version: "9.10.0"
}}
platform_name: "CUDA"
runtime_version {{ major: 13 }}
dnn_version_info {{ major: 9 minor: 10 }}
device_description_str: "{name}"
"""
RESERVED = 1024
"""Bytes of a core's shared memory that no block gets."""


def has_gpu_compiler() -> bool:
    """Say whether the wheels of the extra `plan` are installed."""
    return all(map(is_installed, WHEELS))


def devices_of(accelerator: Accelerator, count: int) -> Sequence[Any]:
    """Return so many devices to compile for; JAX itself must use `cpu` by then.

    Raises:
        ConfigError: their compiler isn't installed.
    """
    from jax.experimental import topologies

    if accelerator.chip is None:
        return _tpus(accelerator, count)
    if not has_gpu_compiler():
        raise ConfigError(
            [f"--for {accelerator.name}: its compiler isn't installed ({INSTALL} installs it)"]
        )
    # It warns that it can't run anything.
    logging.getLogger("jax_plugins.xla_cuda13").setLevel(logging.ERROR)
    config = target_config(accelerator, accelerator.chip)
    return topologies.get_topology_desc(
        "", platform="cuda", target_config=config, topology=f"1x1x{count}"
    ).devices


def target_config(accelerator: Accelerator, chip: Chip) -> str:
    """Return the description of a GPU that XLA compiles for, as a text protocol buffer."""
    major, minor = chip.capability
    return _CONFIG.format(
        name=accelerator.device,
        chip=chip,
        major=major,
        minor=minor,
        extension="ACCELERATED_FEATURES" if chip.has_own_code else "NONE",
        optin=chip.shared - RESERVED,
        memory=int(accelerator.memory),
        bandwidth=int(accelerator.bandwidth),
    )


def _tpus(accelerator: Accelerator, count: int) -> Sequence[Any]:
    from jax.experimental import topologies

    if not is_installed("libtpu"):
        raise ConfigError(
            [f"--for {accelerator.name}: its compiler isn't installed (pip install libtpu)"]
        )
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # this is no machine of Google's
    side = next((n for n in (2, 4, 8, 16) if n * n >= count), None)
    if side is None:
        raise ConfigError([f"--devices {count}: {accelerator.name} has at most 256"])
    topology = f"{accelerator.name}:{side}x{side}"
    found = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    return list(found)[:count]
