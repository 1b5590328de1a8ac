"""A run on many devices and in several processes."""

from chomp.distributed.cluster import ProcessInfo, find_process
from chomp.distributed.data_parallel import DataParallel
from chomp.distributed.initialize import connect
from chomp.distributed.matrices import ShardedStacking
from chomp.distributed.mesh import FSDP, make_mesh
from chomp.distributed.shard_axis import shard_axis
from chomp.distributed.sharding import MeshSharding, device_bytes, shard_shape

__all__ = [
    "FSDP",
    "DataParallel",
    "MeshSharding",
    "ProcessInfo",
    "ShardedStacking",
    "connect",
    "device_bytes",
    "find_process",
    "make_mesh",
    "shard_axis",
    "shard_shape",
]
