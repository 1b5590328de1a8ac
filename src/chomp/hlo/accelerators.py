"""Accelerators that a program can be compiled for, as their data sheets describe them."""

from dataclasses import dataclass
from typing import Literal

from chomp.errors import ConfigError
from chomp.system.device_flops import peak_flops

GB = 1e9
"""As data sheets count."""


@dataclass(frozen=True)
class Chip:
    """A GPU as the compiler has to know it.

    Attributes:
        capability: CUDA compute capability.
        cores: streaming multiprocessors.
        lanes: float32 units of each.
        shared: bytes of shared memory of each.
        threads: number of them that each keeps at most.
        cache: bytes of the second level cache.
        clock: GHz, at most.
    """

    capability: tuple[int, int]
    cores: int
    lanes: int
    shared: int
    threads: int
    cache: int
    clock: float

    @property
    def has_own_code(self) -> bool:
        """Whether there are instructions for this capability only (`sm_90a`), which XLA uses."""
        return self.capability in ((9, 0), (10, 0))


@dataclass(frozen=True)
class Accelerator:
    """One kind of device and what connects it to others.

    Attributes:
        name: its name in commands.
        device: the name that JAX gives it; `chomp.system.device_flops` knows its peak rate.
        memory: bytes.
        bandwidth: bytes a second of its memory.
        tf32: FLOP/s of products of float32 in TF32, dense.
        f32: FLOP/s in float32.
        link: bytes a second that a device sends, and at the same time receives, within a host.
        network: the same between hosts, for each device; None: there is no usual one.
        chip: the GPU as the compiler knows it; None: it is no GPU.
    """

    name: str
    device: str
    memory: float
    bandwidth: float
    tf32: float
    f32: float
    link: float
    network: float | None = None
    chip: Chip | None = None

    @property
    def platform(self) -> Literal["gpu", "tpu"]:
        """In JAX's words."""
        return "gpu" if self.chip else "tpu"

    @property
    def bf16(self) -> float:
        """FLOP/s, dense bfloat16."""
        peak = peak_flops(self.device)
        assert peak is not None, "a test looks all of them up"
        return peak


KIB = 1024
AMPERE = {"capability": (8, 0), "lanes": 64, "shared": 164 * KIB, "threads": 2048}
ADA = {"capability": (8, 9), "lanes": 128, "shared": 100 * KIB, "threads": 1536}
HOPPER = {"capability": (9, 0), "lanes": 128, "shared": 228 * KIB, "threads": 2048}

# Rates and memory: NVIDIA's data sheets (A100, H100, H200, HGX B200, L40S) and whitepapers (Ada and
# RTX Blackwell architecture), TF32 without sparsity. Cores, caches and clocks: the same, and the
# whitepapers of A100 and H100. Links and networks for each direction: data sheets give NVLink and
# PCIe for both together. Networks are those of NVIDIA's own eight-device systems (DGX A100, H100,
# H200, B200), of which each device has an adapter for itself.
ACCELERATORS = (
    Accelerator(
        "h100",
        "NVIDIA H100 80GB HBM3",
        memory=80e9,
        bandwidth=3.35e12,
        tf32=494.7e12,
        f32=66.9e12,
        link=450e9,
        network=50e9,
        chip=Chip(cores=132, cache=50 * KIB**2, clock=1.98, **HOPPER),
    ),
    Accelerator(
        "h200",
        "NVIDIA H200",
        memory=141e9,
        bandwidth=4.8e12,
        tf32=494.7e12,
        f32=66.9e12,
        link=450e9,
        network=50e9,
        chip=Chip(cores=132, cache=50 * KIB**2, clock=1.98, **HOPPER),
    ),
    Accelerator(
        "h100-pcie",  # its NVLink joins pairs only
        "NVIDIA H100 PCIe",
        memory=80e9,
        bandwidth=2.0e12,
        tf32=378e12,
        f32=51.2e12,
        link=64e9,
        chip=Chip(cores=114, cache=50 * KIB**2, clock=1.755, **HOPPER),
    ),
    Accelerator(
        "a100",
        "NVIDIA A100-SXM4-80GB",
        memory=80e9,
        bandwidth=2.039e12,
        tf32=156e12,
        f32=19.5e12,
        link=300e9,
        network=25e9,
        chip=Chip(cores=108, cache=40 * KIB**2, clock=1.41, **AMPERE),
    ),
    Accelerator(
        "a100-40gb",
        "NVIDIA A100-SXM4-40GB",
        memory=40e9,
        bandwidth=1.555e12,
        tf32=156e12,
        f32=19.5e12,
        link=300e9,
        network=25e9,
        chip=Chip(cores=108, cache=40 * KIB**2, clock=1.41, **AMPERE),
    ),
    Accelerator(
        "b200",
        "NVIDIA B200",
        memory=180e9,
        bandwidth=8.0e12,
        tf32=1125e12,
        f32=75e12,
        link=900e9,
        network=50e9,
        chip=Chip((10, 0), 148, 128, 228 * KIB, 2048, 126 * KIB**2, 1.965),
    ),
    Accelerator(
        "l40s",
        "NVIDIA L40S",
        memory=48e9,
        bandwidth=864e9,
        tf32=183e12,
        f32=91.6e12,
        link=32e9,
        chip=Chip(cores=142, cache=96 * KIB**2, clock=2.52, **ADA),
    ),
    # GeForce cards exchange data through the host's memory: PCIe is a limit that they don't reach.
    Accelerator(
        "rtx4090",
        "NVIDIA GeForce RTX 4090",
        memory=24e9,
        bandwidth=1.008e12,
        tf32=82.6e12,
        f32=82.6e12,
        link=32e9,
        chip=Chip(cores=128, cache=72 * KIB**2, clock=2.52, **ADA),
    ),
    Accelerator(
        "rtx5090",
        "NVIDIA GeForce RTX 5090",
        memory=32e9,
        bandwidth=1.792e12,
        tf32=104.8e12,
        f32=104.8e12,
        link=64e9,
        chip=Chip((12, 0), 170, 128, 100 * KIB, 1536, 96 * KIB**2, 2.407),
    ),
    # Google Cloud's page of TPU v5e: 197 TFLOP/s, 16 GB at 819 GB/s, 1,600 Gb/s between chips. A
    # product of float32 is several of bfloat16 there; float32 units aren't published.
    Accelerator(
        "v5e",
        "TPU v5 lite",
        memory=16e9,
        bandwidth=819e9,
        tf32=197e12 / 3,
        f32=197e12 / 6,
        link=50e9,
    ),
)
NAMES = tuple(one.name for one in ACCELERATORS)


def accelerator(name: str) -> Accelerator:
    """Return the accelerator of this name.

    Raises:
        ConfigError: it isn't known; the message lists those that are.
    """
    for known in ACCELERATORS:
        if known.name == name.lower():
            return known
    raise ConfigError([f"--for {name}: isn't known; these are: {', '.join(NAMES)}"])
