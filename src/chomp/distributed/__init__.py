"""A run on many devices and in several processes: mesh, placement, cohort."""

from chomp.distributed.cluster import ProcessInfo, find_process
from chomp.distributed.data_parallel import DataParallel
from chomp.distributed.initialize import join
from chomp.distributed.matrices import distribute_matrices
from chomp.distributed.mesh import FSDP, make_mesh
from chomp.distributed.shard_axis import shard_axis
from chomp.distributed.sharding import MeshSharding, device_bytes, shard_shape
from chomp.distributed.synchronized_batches import StopOrSaveRequest, SynchronizedBatches

__all__ = [
    "FSDP",
    "DataParallel",
    "MeshSharding",
    "ProcessInfo",
    "StopOrSaveRequest",
    "SynchronizedBatches",
    "device_bytes",
    "distribute_matrices",
    "find_process",
    "join",
    "make_mesh",
    "shard_axis",
    "shard_shape",
]
