"""Estimate of a step's time."""

from collections.abc import Iterable
from dataclasses import dataclass

from chomp.hlo.collectives import Collective
from chomp.hlo.figures import Figures
from chomp.hlo.roofline import Cluster


@dataclass(frozen=True)
class Estimate:
    """The time of a step.

    Attributes:
        compute: seconds of what a device does for itself.
        communication: seconds of the collectives.
        tokens: number of them in a step.
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
        """Tokens a second if all that can be is sent while devices compute."""
        return self.tokens / max(self.compute, self.communication)


def by_program(figures: Figures, tokens: int) -> Estimate:
    """Estimate by the operations of the compiled program."""
    return Estimate(figures.seconds - figures.communication, figures.communication, tokens)


def by_utilization(
    cluster: Cluster,
    collectives: Iterable[Collective],
    *,
    flops: float,
    tokens: int,
    mfu: float,
    devices: int,
) -> Estimate:
    """Estimate by a share of the peak rate that is known otherwise.

    compute = flops / (devices * peak * mfu)
    communication = sum over collectives of times * sent / bandwidth

    Args:
        cluster: the one that runs the step.
        collectives: those of the step's program.
        flops: model FLOPs of a step, on all devices together.
        tokens: number of them in a step.
        mfu: share of the peak rate.
        devices: how many.
    """
    seconds = sum(one.times * one.sent / cluster.bandwidth(one.groups) for one in collectives)
    return Estimate(flops / (devices * cluster.accelerator.bf16 * mfu), seconds, tokens)
