"""A run on many devices and in several processes: mesh, placement, cohort."""

from chomp.parallel.in_step import InStep, Wish
from chomp.parallel.join import join
from chomp.parallel.launch import Place, find_place
from chomp.parallel.matrices import deal_out
from chomp.parallel.mesh import FSDP, make_mesh
from chomp.parallel.placement import Placement, device_bytes, piece
from chomp.parallel.rules import cut_axis
from chomp.parallel.spread import Spread

__all__ = [
    "FSDP",
    "InStep",
    "Place",
    "Placement",
    "Spread",
    "Wish",
    "cut_axis",
    "deal_out",
    "device_bytes",
    "find_place",
    "join",
    "make_mesh",
    "piece",
]
