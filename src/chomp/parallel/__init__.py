"""A run on many devices: the mesh, and which device holds what."""

from chomp.parallel.mesh import make_mesh
from chomp.parallel.placement import Placement, device_bytes, piece
from chomp.parallel.rules import cut_axis
from chomp.parallel.spread import Spread

__all__ = ["Placement", "Spread", "cut_axis", "device_bytes", "make_mesh", "piece"]
