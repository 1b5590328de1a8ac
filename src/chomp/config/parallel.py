"""The `parallel` section: how a step is spread over devices."""

from typing import Annotated, Literal

from annotated_types import Interval

from chomp.config.base import INT32_MAX, Count, Dtype, Positive, Section

REST = -1
"""As many devices as the other axis leaves."""
Axis = Annotated[int, Interval(ge=REST, le=INT32_MAX)]


class ParallelConfig(Section):
    """How the rows of a microbatch and the parameters are spread over all devices of a run."""

    data: Axis = REST
    """Groups of devices that each keep all parameters and take their share of the rows. -1: as
    many as the devices allow."""
    fsdp: Axis = 1
    """Devices of such a group: each keeps its share of parameters and optimizer state, and takes
    its share of the rows. -1: as many as the devices allow."""
    gather: Literal["step", "layer"] = "step"
    """For `fsdp` above 1: when a device fetches the others' shares of the parameters. `step`: all
    of them once a step, with room for the whole parameters and their gradients; `layer`: those of
    one layer at a time, twice for each microbatch."""
    reduce_dtype: Dtype = "float32"
    """Number format in which the devices add up their gradients. `bfloat16` sends half as much,
    and rounds every gradient to 8 bits. (Parameters are fetched in `model.compute_dtype`.)"""
    join_seconds: Count = 300
    """How long the processes of a run wait for one another at the start."""
    lost_after_seconds: Positive = 20.0
    """When a process that gives no sign of life counts as lost, which ends the others."""
