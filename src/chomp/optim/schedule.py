"""Learning rate over the steps of a run."""

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
    if config.name != "muon":
        return {"lr": rate}
    return {"lr": rate, "lr_muon": lambda count: rate(count) * config.muon.lr_scale}


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
