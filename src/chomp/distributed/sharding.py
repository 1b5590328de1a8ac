"""Sharding of a run's arrays over its devices."""

import math
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from chomp.distributed.mesh import AXES, FSDP
from chomp.distributed.shard_axis import shard_axis
from chomp.types import Batch

ROWS = P(None, AXES, None)
"""Spec of a batch's arrays [accum, batch, time]: each device has its rows of each microbatch."""


def shard_shape(leaf: jax.ShapeDtypeStruct) -> tuple[int, ...]:
    """Return the shape of one device's part of an array."""
    assert leaf.sharding is not None
    return leaf.sharding.shard_shape(leaf.shape)


def device_bytes(tree: Any) -> int:
    """Return the bytes that one device holds of the arrays of a tree (shapes with shardings)."""
    return sum(math.prod(shard_shape(leaf)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


class ParameterLayout(Protocol):
    """A model, as far as it says how its arrays are best cut."""

    def shard_axis(self, path: str, shape: tuple[int, ...]) -> int | None:
        """Return the dimension of an array to cut if it can be; None: the largest."""
        ...


@dataclass(frozen=True)
class MeshSharding:
    """Gives the sharding of arrays, and puts them on their devices.

    Attributes:
        mesh: the devices.
        model: whose parameters, and arrays of the optimizer, are cut.
    """

    mesh: Mesh
    model: ParameterLayout

    def specs(self, tree: Any) -> Any:
        """Return how each array of the state, or of a part of it, is cut (shapes suffice)."""
        return jax.tree_util.tree_map_with_path(self._spec, tree)

    def place_shapes(self, shapes: Any) -> Any:
        """Return the shapes with the place of each array."""

        def placed(path: tuple[Any, ...], leaf: Any) -> jax.ShapeDtypeStruct:
            where = NamedSharding(self.mesh, self._spec(path, leaf))
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)

        return jax.tree_util.tree_map_with_path(placed, shapes)

    def shardings(self, shapes: Any) -> Any:
        """Return the place of each array that `place_shapes` gave one."""
        return jax.tree.map(lambda leaf: leaf.sharding, shapes)

    @property
    def everywhere(self) -> NamedSharding:
        """The place of a value that every device has whole."""
        return NamedSharding(self.mesh, P())

    def put_batch(self, batch: Batch) -> Batch:
        """Start the copy of this process's rows to its devices; return the whole batch.

        Args:
            batch: arrays [accum, rows of this process, time] on the host.
        """
        where = NamedSharding(self.mesh, ROWS)
        processes = jax.process_count()
        if processes == 1:
            return jax.device_put(batch, where)

        def together(local: np.ndarray) -> jax.Array:
            accum, rows, time = local.shape
            shape = (accum, rows * processes, time)
            return jax.make_array_from_process_local_data(where, local, shape)

        return jax.tree.map(together, batch)

    def place_batch_shapes(self, shapes: Batch) -> Batch:
        """Return the shapes of a whole batch with its place."""
        where = NamedSharding(self.mesh, ROWS)
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), shapes
        )

    def whole_here(self, tree: Any) -> Any:
        """Return the arrays of a tree whole on one device of this process.

        With more than one device it is a program that all processes have to run.
        """
        if self.mesh.size > 1:
            tree = jax.jit(lambda arrays: arrays, out_shardings=NamedSharding(self.mesh, P()))(tree)
        return jax.tree.map(lambda array: array.addressable_data(0), tree)

    def rows_here(self, rows: int) -> range:
        """Return which of a microbatch's rows this process's devices hold."""
        each = rows // self.mesh.size
        mine = [
            place
            for place, device in enumerate(self.mesh.devices.flat)
            if device.process_index == jax.process_index()
        ]
        return range(mine[0] * each, (mine[-1] + 1) * each)

    def _spec(self, path: tuple[Any, ...], leaf: Any) -> P:
        name, shape = jax.tree_util.keystr(path, simple=True, separator="."), tuple(leaf.shape)
        preferred = self.model.shard_axis(name, shape)
        axis = shard_axis(preferred, shape, self.mesh.shape[FSDP])
        return P() if axis is None else P(*[None] * axis, FSDP)
