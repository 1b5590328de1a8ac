"""What a plan is asked for."""

from collections.abc import Sequence
from dataclasses import dataclass

from chomp.errors import ConfigError
from chomp.hlo.accelerators import GB, accelerator
from chomp.hlo.roofline import Cluster
from chomp.hlo.target import INSTALL, has_gpu_compiler

USABLE = 0.9
"""Share of a device's memory that a step can use: driver, communication buffers and fragments of
free memory take the rest. JAX itself takes 0.75 unless XLA_PYTHON_CLIENT_MEM_FRACTION is set."""


@dataclass(frozen=True)
class Request:
    """What a plan is asked for.

    Attributes:
        cluster: what the devices are, and how they are connected.
        devices: how many.
        memory: bytes that a step may use on each; None: `USABLE` of the accelerator's.
        mfu: share of the peak rate, for the speed; None: it is estimated from the program.
        on_processor: compile for this machine's processor, as the accelerator's compiler isn't
            installed.
        search: find the largest microbatch that fits: several programs instead of one.
        propose: find the fastest split of a step's rows that fits.
    """

    cluster: Cluster
    devices: int
    memory: float | None = None
    mfu: float | None = None
    on_processor: bool = False
    search: bool = True
    propose: bool = False

    @property
    def limit(self) -> float:
        """Bytes that a step may use on a device."""
        if self.memory is not None:
            return self.memory
        return USABLE * self.cluster.accelerator.memory

    @property
    def hosts(self) -> int:
        """That the devices are evenly spread over."""
        return self.devices // self.cluster.per_host


# Names that accelerators had in plans before.
EARLIER = {
    "a100-80gb": "a100",
    "h100-sxm": "h100",
    "rtx-4090": "rtx4090",
    "rtx-5090": "rtx5090",
}


@dataclass(frozen=True)
class Asked:
    """The options of a command line.

    Attributes:
        name: of the accelerator.
        devices: how many.
        hosts: that they are evenly spread over.
        memory_gb: that a step may use on each, in 10^9 bytes.
        mfu: share of the peak rate.
        network_gbps: between hosts for each device, in 10^9 bits a second.
        search: find the largest microbatch.
        propose: find the fastest split.
    """

    name: str
    devices: int
    hosts: int
    memory_gb: float | None
    mfu: float | None
    network_gbps: float | None
    search: bool
    propose: bool


def refuse_earlier_option(names: Sequence[str]) -> None:
    """Refuse accelerators that were given to `--accelerator`, an option of before.

    Raises:
        ConfigError: some were.
    """
    if names:
        now = EARLIER.get(names[0], names[0])
        raise ConfigError([f"--accelerator {names[0]}: write --for {now}, one for each plan"])


def make_request(asked: Asked) -> Request:
    """Return the request that a command line is.

    Raises:
        ConfigError: something of it is unknown, or doesn't fit the rest.
    """
    devices, hosts = asked.devices, asked.hosts
    known = accelerator(asked.name)
    check_hosts(devices, hosts)
    network = None if asked.network_gbps is None else asked.network_gbps * GB / 8
    if hosts > 1 and network is None and known.network is None:
        raise ConfigError(
            [f"--hosts {hosts}: {known.name} has no usual network: give --network-gbps"]
        )
    on_processor = known.platform == "gpu" and not has_gpu_compiler()
    if asked.propose and known.platform == "tpu":
        raise ConfigError([f"--propose: {known.name} is no GPU, whose time could be estimated"])
    if asked.propose and on_processor:
        raise ConfigError([f"--propose: needs the GPU's own compiler: {INSTALL}"])
    memory = None if asked.memory_gb is None else asked.memory_gb * GB
    cluster = Cluster(known, devices // hosts, network)
    return Request(cluster, devices, memory, asked.mfu, on_processor, asked.search, asked.propose)


def check_hosts(devices: int, hosts: int) -> None:
    """Check that the devices can be spread evenly.

    Raises:
        ConfigError: they can't.
    """
    if devices % hosts:
        fitting = ", ".join(str(n) for n in range(1, devices + 1) if devices % n == 0)
        raise ConfigError(
            [f"--hosts {hosts}: {devices} devices can't be spread evenly; it can be {fitting}"]
        )
