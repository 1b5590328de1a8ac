"""python compile_ema.py ACCELERATOR: compile the average and its derivatives for a GPU.

A program of its own, as JAX looks for the compiler's plugin when it starts.
"""

import sys

import jax
import jax.numpy as jnp

from chomp.hlo.accelerators import accelerator
from chomp.hlo.target import devices_of
from chomp.ops import Coefficients, ema_kernel

# Batch, time, dim, order, dtype, documents: full blocks of channels with 8 orders in a lane; some
# channels and tokens too many, with 2 orders in a lane.
CASES = [
    (64, 16, 640, 8, "bfloat16", True),
    (1, 21, 13, 16, "float32", True),
    (1, 16, 12, 5, "bfloat16", False),
]


def main(name: str) -> None:
    mesh = jax.sharding.Mesh(devices_of(accelerator(name), 1), ("x",))
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())

    def shape(sizes: tuple[int, ...], dtype: str = "float32") -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(sizes, jnp.dtype(dtype), sharding=everywhere)

    def both(x, c, skip, starts):
        result, pull = jax.vjp(lambda x, c, skip: ema_kernel(x, c, skip, starts), x, c, skip)
        return result, pull(result)

    for batch, time, dim, order, dtype, documents in CASES:
        x, coefficient = shape((batch, time, dim), dtype), shape((dim, order))
        starts = shape((batch, time), "bool") if documents else None
        c = Coefficients(*[coefficient] * 5)
        jax.jit(both).lower(x, c, shape((dim,)), starts).compile()


if __name__ == "__main__":
    main(sys.argv[1])
