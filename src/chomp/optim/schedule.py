"""Learning rate over the steps of a run, and the other rates that a step takes as inputs."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from chomp.config import OptimConfig

Scalar = Float[Array, ""]
"""On a device, or a NumPy one that goes there with the step's inputs."""

RateAt = Callable[[Any], Any]
"""The rates by update count: `Schedule.at`, or a multiple of it."""


class Warmup(NamedTuple):
    """The rise of the rate in a run's first updates."""

    steps: Scalar
    """Updates until the highest rate is reached; 0: the first has it."""
    share: Scalar
    """Share of the rise in each update after the first."""
    first: Scalar
    """The first update's rate less the highest."""


class Decay(NamedTuple):
    """The fall of the rate: along a cosine, a line or a root, whose weights are 1, 0 and 0.

    One formula for all of them, so that one program does for every schedule.
    """

    start: Scalar
    """Updates before it begins."""
    steps: Scalar
    """Updates from the highest rate to the floor."""
    angle: Scalar
    """Radians of the cosine in each of them."""
    floor: Scalar
    """As a share of the highest rate."""
    height: Scalar
    """One less the floor."""
    cosine: Scalar
    linear: Scalar
    root: Scalar


class Schedule(NamedTuple):
    """A linear rise to the highest rate, and a fall to the lowest, which stays.

    What `optim.schedule` and `optim.decay_shape` choose: the cosine is of Loshchilov and Hutter
    (arXiv:1608.03983), the stable rate with a late fall of Hu et al. (arXiv:2404.06395), the root
    of Hägele et al. (arXiv:2405.18392).

    The first update (count 0) has the rate `peak / warmup_steps`, and the last one of the decay
    is still above the floor: a rate of zero would spend a step's computation on nothing.

    All values are scalars in float32, so that a program may take them as inputs.
    """

    peak: Scalar
    """The highest rate."""
    warmup: Warmup
    decay: Decay
    rewarm_from: Scalar
    """Updates before the rate rises once more; the first of that rise has a share of
    `1 / rewarm_steps` of the rate."""
    rewarm_steps: Scalar
    """Updates until the whole rate is reached; 1: it doesn't rise once more."""

    @classmethod
    def of(cls, config: OptimConfig, steps: int) -> "Schedule":
        """Return the schedule of a run.

        Args:
            config: the section `optim`.
            steps: of the whole run.
        """
        rise, fall, one = config.warmup_steps, config.decay_length(steps), np.float32(1)
        # A constant rate is a fall of no height.
        floor = 1.0 if config.schedule == "constant" else config.min_lr_ratio
        shape = config.fall
        again = config.rewarm_steps if config.rewarm_from is not None else None
        return cls(
            _scalar(config.lr),
            Warmup(
                _scalar(rise),
                _scalar(one / np.float32(max(1, rise - 1))),
                _scalar(config.lr / max(1, rise) - config.lr),
            ),
            Decay(
                _scalar(config.decay_start(steps)),
                _scalar(fall),
                _scalar(np.float32(math.pi) * (one / np.float32(fall))),
                _scalar(floor),
                _scalar(1 - floor),
                _scalar(shape == "cosine"),
                _scalar(shape == "linear"),
                _scalar(shape == "sqrt"),
            ),
            _scalar(config.rewarm_from or 0),
            _scalar(again or 1),
        )

    def at(self, count: Any) -> Any:
        """Return the rates, in float32, of the updates after `count` others (integers).

        For integers of Python or NumPy they are computed on the host, without a program.
        """
        xp: Any = jnp if isinstance(count, jax.Array) else np
        if xp is np:
            count = np.asarray(count, np.float32)
        warmup, decay = self.warmup, self.decay
        rising = xp.clip(count, 0, xp.maximum(warmup.steps - 1, 1))
        left = 1 - rising * warmup.share
        falling = xp.clip(count - decay.start, 0, decay.steps)
        done = falling / decay.steps
        cosine = 0.5 * (1 + xp.cos(falling * decay.angle))
        still = decay.cosine * cosine + decay.linear * (1 - done) + decay.root * (1 - done**0.5)
        rate = xp.where(
            count < warmup.steps,
            warmup.first * left + self.peak,
            self.peak * (decay.height * still + decay.floor),
        )
        again = xp.minimum((count - self.rewarm_from + 1) / self.rewarm_steps, 1.0)
        return rate * xp.where(count < self.rewarm_from, 1.0, again)


class Scales(NamedTuple):
    """Learning rates of groups of parameters, as factors of the schedule's."""

    muon: Scalar
    embedding: Scalar
    head: Scalar
    vectors: Scalar


class Rates(NamedTuple):
    """All that a run may change without another program: the step takes them as inputs."""

    schedule: Schedule
    scales: Scales
    weight_decay: Scalar
    muon_weight_decay: Scalar
    max_norm: Scalar
    """Gradients with a larger global norm are scaled down to this one; infinity: none are."""

    @classmethod
    def of(cls, config: OptimConfig, steps: int, step_tokens: int = 1) -> "Rates":
        """Return the rates of a run.

        Args:
            config: the section `optim`.
            steps: of the whole run.
            step_tokens: positions of a step's batch.
        """
        muon, scales = config.muon, config.lr_scales
        muon_scale = muon.lr_scale if muon.lr is None else muon.lr / config.lr
        decay = muon_decay = config.weight_decay
        if config.weight_decay_tokens is not None:
            decay = step_tokens / (config.weight_decay_tokens * config.lr)
            muon_decay = decay / muon_scale
        return cls(
            Schedule.of(config, steps),
            Scales(*map(_scalar, (muon_scale, scales.embedding, scales.head, scales.vectors))),
            _scalar(decay),
            _scalar(muon_decay * muon.weight_decay_mult),
            _scalar(config.grad_clip_norm or math.inf),
        )

    def named(self, optimizer: str) -> dict[str, RateAt]:
        """Return the learning rates by update count, under their names in the metrics.

        Args:
            optimizer: `optim.name`. With `muon` there is the rate `lr_muon` too.
        """
        named: dict[str, RateAt] = {"lr": self.schedule.at}
        if optimizer == "muon":
            named["lr_muon"] = lambda count: self.schedule.at(count) * self.scales.muon
        return named


def _scalar(value: float | np.float32) -> Any:
    return np.float32(value)


def schedules(config: OptimConfig, steps: int) -> dict[str, RateAt]:
    """Return the learning rates of a run by update count, under their names in the metrics.

    Args:
        config: the section `optim`.
        steps: of the whole run.
    """
    return Rates.of(config, steps).named(config.name)
