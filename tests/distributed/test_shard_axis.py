import jax
import pytest

from chomp.config.parallel import ParallelConfig
from chomp.distributed.mesh import axis_sizes, make_mesh
from chomp.distributed.shard_axis import shard_axis
from chomp.errors import ConfigError


@pytest.mark.parametrize(
    ("preferred", "shape", "pieces", "axis"),
    [
        (0, (256, 512), 4, 0),
        (0, (250, 512), 4, 1),  # the first doesn't divide
        (0, (250, 510), 4, None),
        (0, (256, 512), 1, None),
        (0, (32, 64), 4, None),  # small
        (None, (4, 4096), 4, 1),  # the largest
        (None, (8192,), 8, 0),
        (None, (), 8, None),
    ],
)
def test_the_rule(preferred, shape, pieces, axis):
    assert shard_axis(preferred, shape, pieces) == axis


def test_an_axis_takes_the_rest_of_the_devices():
    assert axis_sizes(ParallelConfig(), 8) == (8, 1)
    assert axis_sizes(ParallelConfig(fsdp=4), 8) == (2, 4)
    assert axis_sizes(ParallelConfig(data=2, fsdp=-1), 8) == (2, 4)
    assert axis_sizes(ParallelConfig(data=2, fsdp=4), 8) == (2, 4)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ParallelConfig(data=3, fsdp=2), "data 3 x fsdp 2 are 6 devices, but there are 8"),
        (ParallelConfig(data=16, fsdp=1), "16 devices, but there are 8"),
        (ParallelConfig(fsdp=3), "parallel.fsdp: must divide .* 8 .got 3.; it can be 1, 2, 4, 8"),
        (ParallelConfig(data=5, fsdp=-1), "parallel.data: must divide"),
    ],
)
def test_axes_that_do_not_make_up_the_devices(config, message):
    with pytest.raises(ConfigError, match=message):
        axis_sizes(config, 8)


@pytest.mark.parametrize(("rows", "nearest"), [(3, "8;"), (12, "8 and 16;"), (8, None)])
def test_rows_that_the_devices_cannot_share(rows, nearest):
    devices = jax.devices() * 8
    if nearest is None:
        assert make_mesh(ParallelConfig(), rows, devices).size == 8
        return
    with pytest.raises(ConfigError, match=f"multiple of the number of devices.*nearest: {nearest}"):
        make_mesh(ParallelConfig(), rows, devices)
