"""Estimate of a step's time, by what each of its operations needs most of.

An operation takes the longest of three: the time to launch it, to move its bytes, to multiply.
The shares below are what good kernels reach; docs/gpu.md compares the parts of a step with an H100.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from chomp.hlo.accelerators import Accelerator
from chomp.hlo.collectives import Collective, Groups
from chomp.hlo.compiled import Program
from chomp.hlo.executions import Execution
from chomp.hlo.kernels import flops_of_kernel
from chomp.hlo.products import Precision, products
from chomp.hlo.traffic import moved

OF_BANDWIDTH = 0.75
"""Share of the memory's bandwidth that kernels reach."""
OF_PEAK = 0.6
"""Share of the peak rate that products on tensor cores reach."""
OF_F32_PEAK = 0.4
"""Share of the float32 rate that products without tensor cores, and kernels of ours, reach."""
LAUNCH = 2.5e-6
"""Seconds between the starts of two operations, at least."""
WAIT = 25e-6
"""Seconds that the device is idle where the host waits for it: a copy to the host, and the way
back through the queue."""

Bound = Literal["launches", "bandwidth", "products", "communication", "host waits"]


@dataclass(frozen=True)
class Cost:
    """The cost of an instruction in a step.

    Attributes:
        execution: how often it runs.
        moved: bytes of all executions, in the device's memory.
        flops: those of products, by their precision; `kernel`: declared by Pallas
            kernels, but `bf16` if they multiply matrices of bfloat16.
        sent: bytes of collectives, from each device.
        seconds: time of all executions.
        bound: what takes that long.
    """

    execution: Execution
    moved: float
    flops: Mapping[Precision | Literal["kernel"], float]
    sent: float
    seconds: float
    bound: Bound


@dataclass(frozen=True)
class Cluster:
    """Devices, and what connects them.

    Attributes:
        accelerator: each of them.
        per_host: the first so many are on the first host, and so on.
        network: bytes a second between hosts for each device; None: the accelerator's usual one.
    """

    accelerator: Accelerator
    per_host: int
    network: float | None = None

    def bandwidth(self, groups: Groups) -> float:
        """Return the bytes a second that each device of the slowest group can send.

        A ring of devices that spans hosts leaves each host over the network, and k rings over k
        adapters where a host has k devices of the group: each device's share of what is sent then
        goes at k times the speed of one adapter, if the links within the host allow.
        """
        slowest = self.accelerator.link
        network = self.network or self.accelerator.network
        for group in groups:
            hosts = [device // self.per_host for device in group]
            if len(set(hosts)) > 1:
                if network is None:
                    raise ValueError(f"nobody knows a network of {self.accelerator.name}")
                slowest = min(slowest, min(map(hosts.count, hosts)) * network)
        return slowest


def cost(
    program: Program, execution: Execution, cluster: Cluster, collective: Collective | None
) -> Cost:
    """Estimate what one instruction costs.

    Args:
        program: the one that it belongs to.
        execution: the instruction, and how often it runs.
        cluster: the one that runs it.
        collective: the one that it starts, if any.
    """
    one, device = execution.instruction, cluster.accelerator
    per_time = execution.operations / execution.times
    launch = per_time * LAUNCH
    if collective is not None:
        needed = {
            "launches": launch,
            "communication": collective.sent / cluster.bandwidth(collective.groups),
        }
        return _cost(execution, 0, {}, collective.sent, needed)
    flops: dict[Precision | Literal["kernel"], float] = {}
    for product in products(program.module, one):
        flops[product.precision] = flops.get(product.precision, 0) + product.flops
    declared = flops_of_kernel(program.kernels, one)
    if declared.flops:
        flops[declared.rate] = declared.flops
    rates = {
        "bf16": device.bf16 * OF_PEAK,
        "tf32": device.tf32 * OF_PEAK,
        "f32": device.f32 * OF_F32_PEAK,
        "kernel": device.f32 * OF_F32_PEAK,
    }
    size = moved(program.module, one) if one.computation else 0
    needed = {
        "launches": launch,
        "bandwidth": size / (device.bandwidth * OF_BANDWIDTH),
        "products": sum(count / rates[precision] for precision, count in flops.items()),
    }
    return _cost(execution, size, flops, 0, needed)


def _cost(execution, size, flops, sent, needed) -> Cost:
    times = execution.times
    bound = max(needed, key=needed.__getitem__)
    every = {precision: count * times for precision, count in flops.items()}
    return Cost(execution, size * times, every, sent * times, needed[bound] * times, bound)
