"""How long a step would take, from what it multiplies and sends."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from chomp.parallel.collectives import Collective, Groups
from chomp.plan.accelerators import Accelerator

MFU = 0.4
"""Share of the peak rate that the model's products are taken to reach: PaLM 540B reached 0.46
(arXiv:2204.02311), llm-foundry's 125M transformer 0.45 on an A100. No Megalodon is behind it: the
`mfu` in the metrics of a run on one device is better."""
RECOMPUTATION = 3 / 4
"""Of it where blocks are computed again for the backward pass: four passes for three that count."""


@dataclass(frozen=True)
class Estimate:
    """The time of a step on one kind of accelerator.

    Attributes:
        compute: seconds of the matrix products.
        communication: seconds of the collectives.
        tokens: of a step.
    """

    compute: float
    communication: float
    tokens: int

    @property
    def slow(self) -> float:
        """Tokens a second if devices wait for every collective."""
        return self.tokens / (self.compute + self.communication)

    @property
    def fast(self) -> float:
        """Tokens a second if all that can be is sent while devices multiply."""
        return self.tokens / max(self.compute, self.communication)


def estimate(
    accelerator: Accelerator,
    collectives: Iterable[Collective],
    *,
    flops: float,
    tokens: int,
    mfu: float,
    devices: int,
    hosts: int,
    network: float | None = None,
) -> Estimate | None:
    """Estimate the time of a step.

    compute = flops / (devices * peak * mfu)
    communication = sum over collectives of times * sent / bandwidth

    Args:
        accelerator: each of the devices.
        collectives: of the step's program.
        flops: model FLOPs of a step, on all devices together.
        tokens: of a step.
        mfu: share of the peak rate.
        devices: how many; the first `devices / hosts` are on the first host, and so on.
        hosts: how many.
        network: bytes a second between hosts for each device; None: the accelerator's usual one.

    Returns:
        None if there are several hosts and nobody knows how fast their network is.
    """
    network = network or accelerator.network
    if hosts > 1 and network is None:
        return None
    seconds = 0.0
    for collective in collectives:
        speed = bandwidth(collective.groups, devices // hosts, accelerator.link, network)
        seconds += collective.times * collective.sent / speed
    return Estimate(flops / (devices * accelerator.peak * mfu), seconds, tokens)


def bandwidth(groups: Groups, per_host: int, link: float, network: float | None) -> float:
    """Return the bytes a second that each device of the slowest group can send.

    A ring of devices that spans hosts leaves each host over the network, and k rings over k
    adapters where a host has k devices of the group: each device's share of what is sent then
    goes at k times the speed of one adapter, if the links within the host allow.
    """
    slowest = link
    for group in groups:
        members = Counter(device // per_host for device in group)
        if len(members) > 1:
            assert network is not None, "there are several hosts"
            slowest = min(slowest, min(members.values()) * network)
    return slowest
