"""Learning rate over the steps of a run, and the other rates that a step takes as inputs."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from chomp.config import OptimConfig

Scalar = Float[Array, ""]
"""On a device, or a NumPy one that goes there with the step's inputs."""


class Warmup(NamedTuple):
    """The rise of the rate in a run's first updates."""

    steps: Scalar
    """Updates until the highest rate is reached; 0: the first has it."""
    share: Scalar
    """Share of the rise in each update after the first."""
    first: Scalar
    """The first update's rate less the highest."""


class Decay(NamedTuple):
    """The fall of the rate after the warm-up, along a cosine."""

    steps: Scalar
    """Updates from the highest rate to the floor."""
    angle: Scalar
    """Radians of the cosine in each of them."""
    floor: Scalar
    """As a share of the highest rate."""
    height: Scalar
    """One less the floor."""


class Schedule(NamedTuple):
    """A linear rise to the highest rate, then a cosine to the lowest, which stays.

    The first update (count 0) has the rate `peak / warmup_steps`, and the last one of the decay
    is still above the floor: a rate of zero would spend a step's computation on nothing.

    All values are scalars in float32, so that a program may take them as inputs. What could be
    computed from others is here too, rounded as XLA rounds it where these are constants of a
    program: runs from when they were go on bit for bit.
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
        again = config.rewarm_steps if config.rewarm_from is not None else None
        return cls(
            _scalar(config.lr),
            Warmup(
                _scalar(rise),
                _scalar(one / np.float32(max(1, rise - 1))),
                _scalar(config.lr / max(1, rise) - config.lr),
            ),
            Decay(
                _scalar(fall),
                _scalar(np.float32(math.pi) * (one / np.float32(fall))),
                _scalar(config.min_lr_ratio),
                _scalar(1 - config.min_lr_ratio),
            ),
            _scalar(config.rewarm_from or 0),
            _scalar(again or 1),
        )

    def at(self, count: Any) -> Any:
        """Return the rates, in float32, of the updates after `count` others (integers)."""
        warmup, decay = self.warmup, self.decay
        left = 1 - jnp.clip(count, 0, jnp.maximum(warmup.steps - 1, 1)) * warmup.share
        falling = jnp.minimum(count - warmup.steps, decay.steps)
        cosine = 0.5 * (1 + jnp.cos(falling * decay.angle))
        rate = jnp.where(
            count < warmup.steps,
            warmup.first * left + self.peak,
            self.peak * (decay.height * cosine + decay.floor),
        )
        again = jnp.minimum((count - self.rewarm_from + 1) / self.rewarm_steps, 1.0)
        return rate * jnp.where(count < self.rewarm_from, 1.0, again)


class Rates(NamedTuple):
    """All that a run may change without another program: the step takes them as inputs."""

    schedule: Schedule
    muon_scale: Scalar
    """Muon's learning rate is the schedule's times this."""
    weight_decay: Scalar
    muon_weight_decay: Scalar
    max_norm: Scalar
    """Gradients with a larger global norm are scaled down to this one; infinity: none are."""

    @classmethod
    def of(cls, config: OptimConfig, steps: int) -> "Rates":
        """Return the rates of a run.

        Args:
            config: the section `optim`.
            steps: of the whole run.
        """
        muon = config.muon
        return cls(
            Schedule.of(config, steps),
            _scalar(muon.lr_scale),
            _scalar(config.weight_decay),
            _scalar(config.weight_decay * muon.weight_decay_mult),
            _scalar(config.grad_clip_norm or math.inf),
        )

    def as_constants(self) -> "Rates":
        """Return the same as numbers of Python, which become constants of a program."""
        return jax.tree.map(float, self)

    @property
    def are_constants(self) -> bool:
        """Whether they are constants of the program, not inputs."""
        return isinstance(self.max_norm, float)

    def named(self, optimizer: str) -> dict[str, optax.Schedule]:
        """Return the learning rates by update count, under their names in the metrics.

        Args:
            optimizer: `optim.name`. With `muon` there is the rate `lr_muon` too.
        """
        named: dict[str, optax.Schedule] = {"lr": self.schedule.at}
        if optimizer == "muon":
            named["lr_muon"] = lambda count: self.schedule.at(count) * self.muon_scale
        return named


def _scalar(value: float | np.float32) -> Any:
    return np.float32(value)


def schedules(config: OptimConfig, steps: int) -> dict[str, optax.Schedule]:
    """Return the learning rates of a run by update count, under their names in the metrics.

    Args:
        config: the section `optim`.
        steps: of the whole run.
    """
    return Rates.of(config, steps).named(config.name)
