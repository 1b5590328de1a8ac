"""Learning rate over the steps of a run."""

import optax


def decay_steps(steps: int, warmup_steps: int, configured: int | None) -> int:
    """Return the length of the cosine decay in steps: `configured`, or all after the warm-up."""
    return configured if configured is not None else max(1, steps - warmup_steps)


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
