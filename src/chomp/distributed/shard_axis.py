"""The dimension along which a parameter is cut among the devices of an `fsdp` group."""

import math
from typing import Any

# Small ones are whole everywhere: together a fraction of a percent, at the price of a message each.
SMALLEST = 4096
# By the names at the end of a path. The first dimension of a weight is its output: pieces of it
# follow one another in memory, so that putting them together is no more than a copy.
FIRST = frozenset({"embed", "lm_head", "wz", "wv", "wr", "wh1", "wh2", "fc1", "fc2", "fc3", "cema"})


def shard_axis(path: tuple[Any, ...], shape: tuple[int, ...], pieces: int) -> int | None:
    """Return the dimension of an array that is cut into `pieces`; None: each device has all of it.

    Weights, embeddings and the moving average's coefficients are cut along their first dimension,
    everything else, and what doesn't divide there, along the largest that divides. Arrays of the
    optimizer end in the path of their parameter, and so are cut in the same way.

    Args:
        path: the array's path, as `jax.tree_util` gives it.
        shape: the array's shape.
        pieces: number of devices that share it.
    """
    if pieces == 1 or math.prod(shape) < SMALLEST:
        return None
    fitting = [axis for axis, size in enumerate(shape) if size % pieces == 0]
    owner = getattr(path[-2], "name", "") if len(path) > 1 else ""
    if owner in FIRST and 0 in fitting:
        return 0
    return max(fitting, key=lambda axis: shape[axis], default=None)
