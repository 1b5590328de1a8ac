"""The mesh of a run's devices."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from chomp.config.parallel import REST, ParallelConfig
from chomp.errors import ConfigError

DATA, FSDP = "data", "fsdp"
AXES = (DATA, FSDP)
"""Both split the rows of a microbatch; only `FSDP` splits parameters."""


def make_mesh(config: ParallelConfig, rows: int, devices: Sequence[Any] | None = None) -> Mesh:
    """Arrange the devices as a config wants it.

    Neighbours share parameters, since those of one host have the fast links.

    Args:
        config: the `parallel` section.
        rows: number of them in a microbatch (`train.batch_size`), which all devices share.
        devices: those to use; None: all devices of all processes.

    Raises:
        ConfigError: the axes don't make up the devices, or the rows can't be shared evenly.
    """
    devices = jax.devices() if devices is None else devices
    data, fsdp = axis_sizes(config, len(devices))
    if rows % len(devices):
        raise ConfigError([_uneven(rows, len(devices))])
    return Mesh(np.array(devices, object).reshape(data, fsdp), AXES)


def axis_sizes(config: ParallelConfig, devices: int) -> tuple[int, int]:
    """Return the sizes of both axes.

    Raises:
        ConfigError: they don't make up the number of devices.
    """
    data, fsdp = config.data, config.fsdp
    if REST not in (data, fsdp):
        if data * fsdp == devices:
            return data, fsdp
        raise ConfigError(
            [
                f"parallel: data {data} x fsdp {fsdp} are {data * fsdp} devices, but there are "
                f"{devices}; set one of the two to -1, or make fewer devices visible "
                "(CUDA_VISIBLE_DEVICES)"
            ]
        )
    key, given = ("fsdp", fsdp) if data == REST else ("data", data)
    if devices % given:
        fitting = [n for n in range(1, devices + 1) if devices % n == 0]
        raise ConfigError(
            [
                f"parallel.{key}: must divide the number of devices, which is {devices} (got "
                f"{given}); it can be {', '.join(map(str, fitting))}"
            ]
        )
    rest = devices // given
    return (rest, fsdp) if data == REST else (data, rest)


def _uneven(rows: int, devices: int) -> str:
    below = rows - rows % devices
    nearest = f"{below} and {below + devices}" if below else str(devices)
    return (
        f"train.batch_size: must be a multiple of the number of devices, which is {devices}: they "
        f"share the rows evenly (got {rows}); the nearest: {nearest}; or make fewer devices "
        "visible (CUDA_VISIBLE_DEVICES)"
    )
