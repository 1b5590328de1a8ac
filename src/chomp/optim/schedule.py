"""Learning rate over the steps of a run."""

from typing import Any

import jax.numpy as jnp
import optax

from chomp.config import OptimConfig


def schedules(config: OptimConfig, steps: int) -> dict[str, optax.Schedule]:
    """Return the learning rates by update count, under their names in the metrics.

    Args:
        config: the `optim` section. Muon has the rate `lr_muon`, `muon.lr_scale` times `lr`.
        steps: of the whole run.
    """
    rate = warmup_cosine(
        config.lr,
        warmup_steps=config.warmup_steps,
        decay_steps=config.decay_length(steps),
        min_ratio=config.min_lr_ratio,
    )
    if config.rewarm_steps is not None and config.rewarm_from is not None:
        rate = rewarmed(rate, begin=config.rewarm_from, steps=config.rewarm_steps)
    if config.name != "muon":
        return {"lr": rate}
    return {"lr": rate, "lr_muon": lambda count: rate(count) * config.muon.lr_scale}


def rewarmed(rate: optax.Schedule, *, begin: int, steps: int) -> optax.Schedule:
    """Rise linearly to a schedule once more; before and after that the rates are its own.

    Args:
        rate: the schedule.
        begin: updates before the rise; the first of it has a share of `1 / steps` of the rate.
        steps: updates until the whole rate is reached.
    """

    def scaled(count: Any) -> Any:
        share = jnp.where(count < begin, 1.0, jnp.minimum((count - begin + 1) / steps, 1.0))
        return rate(count) * share

    return scaled


def warmup_cosine(
    peak: float, *, warmup_steps: int, decay_steps: int, min_ratio: float
) -> optax.Schedule:
    """Rise linearly to `peak`, then fall along a cosine to `peak * min_ratio` and stay there.

    The first update (count 0) has the rate `peak / warmup_steps`, and the last one of the decay
    is still above the floor: a rate of zero would spend a step's computation on nothing.

    Args:
        peak: learning rate at the end of the warm-up.
        warmup_steps: updates until `peak` is reached; 0 starts at `peak`.
        decay_steps: updates from `peak` to the floor.
        min_ratio: the floor as a share of `peak`.
    """
    cosine = optax.cosine_decay_schedule(peak, decay_steps, alpha=min_ratio)
    if warmup_steps == 0:
        return cosine
    rise = optax.linear_schedule(peak / warmup_steps, peak, max(1, warmup_steps - 1))
    return optax.join_schedules([rise, cosine], [warmup_steps])
