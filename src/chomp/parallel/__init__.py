"""A run on many devices: the mesh, and which device holds what."""

from chomp.parallel.matrices import deal_out
from chomp.parallel.mesh import FSDP, make_mesh
from chomp.parallel.placement import Placement, device_bytes, piece
from chomp.parallel.rules import cut_axis
from chomp.parallel.spread import Spread

__all__ = [
    "FSDP",
    "Placement",
    "Spread",
    "cut_axis",
    "deal_out",
    "device_bytes",
    "make_mesh",
    "piece",
]
