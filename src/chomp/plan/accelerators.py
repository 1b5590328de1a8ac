"""Accelerators that a plan can be made for, as their data sheets describe them."""

from dataclasses import dataclass

from chomp.errors import ConfigError
from chomp.flop_rate import peak_flops

GB = 1e9
"""As data sheets count."""


@dataclass(frozen=True)
class Accelerator:
    """One kind of device and what connects it to others.

    Attributes:
        name: in commands.
        device: the name that JAX gives it, which `chomp.flop_rate` knows the peak rate of.
        memory: bytes.
        link: bytes a second that a device sends, and at the same time receives, within a host.
        network: the same between hosts, for each device; None: there is no usual one.
    """

    name: str
    device: str
    memory: float
    link: float
    network: float | None

    @property
    def peak(self) -> float:
        """FLOP/s, dense bfloat16."""
        peak = peak_flops(self.device)
        assert peak is not None, "a test looks all of them up"
        return peak


def _accelerator(
    name: str, device: str, memory: float, link: float, network: float | None = None
) -> Accelerator:
    return Accelerator(name, device, memory * GB, link * GB, network and network * GB)


# Memory in GB. Links and networks in GB/s for each direction: data sheets give NVLink and PCIe for
# both together. Networks are those of NVIDIA's own eight-device systems, of which each device has
# an adapter for itself.
ACCELERATORS = (
    # A100 data sheet: NVLink 600 GB/s; DGX A100 data sheet: 200 Gb/s a device.
    _accelerator("a100-40gb", "NVIDIA A100-SXM4-40GB", 40, 300, 25),
    _accelerator("a100-80gb", "NVIDIA A100-SXM4-80GB", 80, 300, 25),
    # H100 data sheet: PCIe Gen5 128 GB/s (its NVLink joins pairs only); NVLink 900 GB/s.
    # DGX H100 data sheet: 400 Gb/s a device.
    _accelerator("h100-pcie", "NVIDIA H100 PCIe", 80, 64),
    _accelerator("h100-sxm", "NVIDIA H100 80GB HBM3", 80, 450, 50),
    # H200 data sheet: 141 GB, NVLink 900 GB/s; DGX H200 data sheet: 400 Gb/s a device.
    _accelerator("h200", "NVIDIA H200", 141, 450, 50),
    # DGX B200 data sheet: 1,440 GB and NVLink 14.4 TB/s for eight, 400 Gb/s a device.
    _accelerator("b200", "NVIDIA B200", 180, 900, 50),
    # Data sheet and product pages: PCIe Gen4 x16, Gen4 x16, Gen5 x16. GeForce cards exchange data
    # through the host's memory: these are limits that they don't reach.
    _accelerator("l40s", "NVIDIA L40S", 48, 32),
    _accelerator("rtx-4090", "NVIDIA GeForce RTX 4090", 24, 32),
    _accelerator("rtx-5090", "NVIDIA GeForce RTX 5090", 32, 64),
)
USUAL = ("a100-80gb", "h100-sxm", "b200")
"""Those that a plan is made for when none is named."""


def accelerator(name: str) -> Accelerator:
    """Return the accelerator of this name.

    Raises:
        ConfigError: it isn't known; the message lists those that are.
    """
    for known in ACCELERATORS:
        if known.name == name.lower():
            return known
    names = ", ".join(known.name for known in ACCELERATORS)
    raise ConfigError([f"--accelerator {name}: isn't known; these are: {names}"])
