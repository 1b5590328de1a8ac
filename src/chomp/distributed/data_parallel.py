"""Work on a batch, spread over the devices by its rows."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, PRNGKeyArray

from chomp.distributed.mesh import AXES, DATA, FSDP
from chomp.distributed.sharding import ROWS, MeshSharding
from chomp.ops import Cut, ParamShard, gather, is_shard, summed_piece
from chomp.types import Batch

T = TypeVar("T")
Sums = tuple[Array, Any, Array]
"""Summed loss, summed gradients, number of targets."""


@dataclass(frozen=True)
class DataParallel:
    """Runs functions of parameters and rows on every device's rows, and sums what they return.

    Each device runs the program of one device on its rows, so nothing in it is left to a
    partitioner, and there are no messages but those written here.

    Attributes:
        sharding: the sharding of the arrays.
        by_layer: a device fetches the parameters that others hold layer by layer, where the model
            uses them; else all at once, for the whole step.
        cast_dtypes: returns the dtype that the model casts each parameter to, which is the one
        that they are fetched in.
        reduce_dtype: number format in which devices add up gradients.
    """

    sharding: MeshSharding
    by_layer: bool
    cast_dtypes: Callable[[Any], Any]
    reduce_dtype: Any

    def gradients(
        self, accumulate: Callable[[Any, Batch, PRNGKeyArray | None], Sums]
    ) -> Callable[[Any, Batch, PRNGKeyArray | None], Sums]:
        """Return `accumulate` for the whole batch: sums over the rows of all devices.

        Parameters' gradients come back cut as the parameters are. What is summed over `data` is
        summed once, after all microbatches; over `fsdp` as well, unless `by_layer` has each
        microbatch hand the others their shares. One device alone has nothing to sum.
        """
        if self.sharding.mesh.size == 1:
            return accumulate

        def local(shares: Any, batch: Batch, key: PRNGKeyArray | None) -> Sums:
            if self.by_layer:
                loss, grads, targets = accumulate(shares, batch, self._own(key))
            else:
                loss, grads, targets = accumulate(gather(shares), batch, self._own(key))
                grads = jax.tree.map(_cut_like, shares, grads, is_leaf=is_shard)
            grads = jax.tree.map(self._sum_replicas, grads, is_leaf=is_shard)
            return jax.lax.psum(loss, AXES), grads, jax.lax.psum(targets, AXES)

        return self._on_devices(local, lambda specs: (P(), specs, P()))

    def sums(
        self, work: Callable[[Any, Batch], tuple[Array, ...]]
    ) -> Callable[[Any, Batch], tuple[Array, ...]]:
        """Return `work` for the whole batch: each of its results summed over all devices."""
        if self.sharding.mesh.size == 1:
            return work

        def local(shares: Any, batch: Batch, key: None) -> tuple[Array, ...]:
            return jax.lax.psum(work(shares if self.by_layer else gather(shares), batch), AXES)

        spread = self._on_devices(local, lambda specs: P())
        return lambda params, batch: spread(params, batch, None)

    def _on_devices(self, local: Callable[..., T], out: Callable[[Any], Any]) -> Callable[..., T]:
        def call(params: Any, batch: Batch, key: PRNGKeyArray | None) -> T:
            specs = self.sharding.specs(params)

            def marked(pieces: Any, batch: Batch, key: PRNGKeyArray | None) -> T:
                shares = jax.tree.map(self._mark, pieces, specs, self.cast_dtypes(pieces))
                return local(shares, batch, key)

            return jax.shard_map(
                marked,
                mesh=self.sharding.mesh,
                in_specs=(specs, ROWS, P()),
                out_specs=out(specs),
                check_vma=False,
            )(params, batch, key)

        return call

    def _own(self, key: PRNGKeyArray | None) -> PRNGKeyArray | None:
        """Let devices drop different values out of their rows."""
        if key is None:
            return key
        return jax.random.fold_in(key, jax.lax.axis_index(AXES))

    def _mark(self, piece: Array, spec: P, cast: Any) -> Array | ParamShard:
        """Mark what is only a share of a parameter."""
        if FSDP not in spec:
            return piece
        # Never in more bytes than it is kept in.
        fetched = min(piece.dtype, np.dtype(cast), key=lambda dtype: dtype.itemsize)
        return ParamShard(piece, Cut(spec.index(FSDP), FSDP, fetched, self.reduce_dtype))

    def _sum_replicas(self, grad: Array | ParamShard) -> Array:
        """Sum over all devices that have the same piece of a parameter."""
        piece, axes = (grad.piece, DATA) if isinstance(grad, ParamShard) else (grad, AXES)
        return jax.lax.psum(piece.astype(self.reduce_dtype), axes).astype(piece.dtype)


def _cut_like(share: Array | ParamShard, grad: Array) -> Array | ParamShard:
    """Sum over the devices that share a parameter, each of which keeps its piece."""
    if not isinstance(share, ParamShard):
        return grad
    return ParamShard(summed_piece(share.cut, grad), share.cut)
