"""Which dimension of an array the devices of an `fsdp` group cut among themselves."""

import math

# Small ones are whole everywhere: together a fraction of a percent, at the price of a message each.
SMALLEST = 4096


def shard_axis(preferred: int | None, shape: tuple[int, ...], pieces: int) -> int | None:
    """Return the dimension of an array that is cut into `pieces`; None: each device has all of it.

    Args:
        preferred: to be cut if it divides; else, and with None, it is the largest that does.
        shape: of the array.
        pieces: devices that share it.
    """
    if pieces == 1 or math.prod(shape) < SMALLEST:
        return None
    fitting = [axis for axis, size in enumerate(shape) if size % pieces == 0]
    if preferred in fitting:
        return preferred
    return max(fitting, key=lambda axis: shape[axis], default=None)
