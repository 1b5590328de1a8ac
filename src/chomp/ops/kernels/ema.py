"""Complex exponential moving average as GPU kernels, over one stream or isolated documents.

The average of `chomp.ops.complex_ema` token by token, with its state in registers: x is read once
and y written once, channels last. Written in Pallas for its Triton lowering: for NVIDIA GPUs.

For each channel and order, with q = r + i s and c = gamma p, the state is (u, v): its real part
and its imaginary part over s. Scaled so, a token costs five multiply-adds an order instead of six,
and nothing is divided by s:

    v_t = r v_{t-1} + u_{t-1}        u_t = r u_{t-1} - s^2 v_{t-1} + x_t
    y_t = skip x_t + sum_n (a u_t + b v_t)        a = Re c        b = -s Im c

The derivative with respect to x is the same average of dy with time reversed. Those with respect
to r and s^2 need a second stage whose input is v, and all four a sum over time: a second pass over
x and dy, for which nothing was stored.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array, Bool, Float

from chomp.ops.complex_ema import Coefficients
from chomp.ops.kernels.token_loop import LANES, Grid, Lanes, Loop, Ref, Tile, multiply_add, restarts

# Warps that run at once on an H100, and instructions a token besides the orders' arithmetic: for
# the choice between few programs with much to do for each token and many with little.
SCHEDULERS = 4 * 132
OVERHEAD = 12
# Of a lane; with inputs and coefficients they have to fit into 255 registers.
NUMBERS = 80


def ema_kernel(
    x: Float[Array, "batch time dim"],
    coefficients: Coefficients,
    skip: Float[Array, " dim"] | None = None,
    starts: Bool[Array, "batch time"] | None = None,
    interpret: bool = False,
) -> Float[Array, "batch time dim"]:
    """Return the moving average of `x` along time plus `skip * x`, in the dtype of `x`.

    Args:
        x: input, bfloat16 or float32; computed in float32.
        coefficients: of the average.
        skip: weight of the input itself, by channel; None: 0.
        starts: where a document starts and with it the average; None: one stream.
        interpret: run as ordinary operations: on any platform, and slowly.
    """
    return _average(x, _table(coefficients, skip), starts, interpret)


def _parts(x: Float[Array, "batch time dim"], order: int, multiply_adds: int) -> int:
    """Return among how many lanes the orders of one channel are split.

    More lanes are more programs, for a chip that few would leave idle, but each has to load and to
    sum as before. A lane has so few orders that all its numbers fit in registers.

    Args:
        x: input.
        order: of the average.
        multiply_adds: for each order and token; as many numbers are kept of an order.
    """
    channels = x.shape[0] * x.shape[2]

    def cycles(parts: int) -> int:
        warps = pl.cdiv(channels * parts, LANES)
        return pl.cdiv(warps, SCHEDULERS) * (multiply_adds * pl.cdiv(order, parts) + OVERHEAD)

    most = NUMBERS // multiply_adds
    fitting = [parts for parts in (1, 2, 4, 8) if parts <= order <= most * parts]
    return min(fitting, key=cycles) if fitting else LANES


def _table(
    coefficients: Coefficients, skip: Float[Array, " dim"] | None
) -> Float[Array, "rows dim"]:
    """Return r, -s^2, a and b of each order, then skip."""
    p, magnitude, phase, gamma_real, gamma_imag = coefficients
    dim, order = p.shape
    s = magnitude * jnp.sin(phase)
    rows = jnp.stack([magnitude * jnp.cos(phase), -s * s, gamma_real * p, -s * gamma_imag * p])
    weight = jnp.zeros((1, dim)) if skip is None else skip.astype(jnp.float32)[None]
    return jnp.concatenate([rows.transpose(2, 0, 1).reshape(4 * order, dim), weight])


def _split(table: Float[Array, "rows dim"], parts: int) -> Float[Array, "fewer parts dim"]:
    """Return the rows of each of a channel's lanes, whose orders are a part of all.

    Orders are filled up with zeros to a multiple of `parts`; only the first part has the skip.
    """
    dim = table.shape[1]
    orders = table[:-1].reshape(-1, 4, dim)
    orders = jnp.pad(orders, ((0, -len(orders) % parts), (0, 0), (0, 0)))
    rows = orders.reshape(parts, -1, 4, dim).transpose(1, 2, 0, 3).reshape(-1, parts, dim)
    return jnp.concatenate([rows, jnp.pad(table[None, -1:], ((0, 0), (0, parts - 1), (0, 0)))])


def _join(rows: Float[Array, "fewer parts dim"], order: int) -> Float[Array, "rows dim"]:
    """Return the table again; the inverse of `_split`."""
    _, parts, dim = rows.shape
    orders = rows[:-1].reshape(-1, 4, parts, dim).transpose(2, 0, 1, 3).reshape(-1, dim)
    return jnp.concatenate([orders[: 4 * order], rows[-1, :1]])


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _average(
    x: Float[Array, "batch time dim"],
    table: Float[Array, "rows dim"],
    starts: Bool[Array, "batch time"] | None,
    interpret: bool,
) -> Float[Array, "batch time dim"]:
    return _filter(x, table, starts, interpret, reverse=False)


def _average_forward(x: Array, table: Array, starts: Array | None, interpret: bool) -> tuple:
    return _average(x, table, starts, interpret), (x, table, starts)


def _average_backward(interpret: bool, saved: tuple, grad: Array) -> tuple[Array, Array, None]:
    x, table, starts = saved
    to_x = _filter(grad, table, starts, interpret, reverse=True)
    return to_x, _table_gradient(x, grad, table, starts, interpret), None


_average.defvjp(_average_forward, _average_backward)


class _Numbers:
    """A lane's numbers in a table: of each of its orders, and of the skip."""

    def __init__(self, lanes: Lanes, ref: Ref):
        *rows, self.skip = (lanes.read_row(ref, row) for row in range(ref.shape[0]))
        self.orders = [rows[first : first + 4] for first in range(0, len(rows), 4)]

    def zeros(self, each: int) -> list[list[Tile]]:
        """Return so many zeros for each order."""
        return [[jnp.zeros_like(self.skip)] * each for _ in self.orders]


def _advance(fma: Any, order: Sequence[Tile], u: Tile, v: Tile, x: Tile) -> tuple[Tile, Tile]:
    """Return the next u and v."""
    r, minus_square, *_ = order
    return fma(r, u, fma(minus_square, v, x)), fma(r, v, u)


def _filter(
    x: Float[Array, "batch time dim"],
    table: Float[Array, "rows dim"],
    starts: Bool[Array, "batch time"] | None,
    interpret: bool,
    *,
    reverse: bool,
) -> Float[Array, "batch time dim"]:
    parts = _parts(x, len(table) // 4, multiply_adds=5)
    table = _split(table, parts)
    rows = len(table)
    grid, fma = Grid.over(x, parts), multiply_add(interpret)

    def kernel(table_ref: Ref, x_ref: Ref, *refs: Ref) -> None:
        lanes = Lanes(grid, reverse)
        numbers = _Numbers(lanes, table_ref)

        def token(state: Any, sums: tuple[()], x: Tile) -> tuple[Any, tuple[()], Tile]:
            result, after = numbers.skip * x, []
            for order, (u, v) in zip(numbers.orders, state, strict=True):
                u, v = _advance(fma, order, u, v, x)
                result = fma(order[3], v, fma(order[2], u, result))
                after.append([u, v])
            return after, sums, result

        *cleared, out_ref = refs
        loop = Loop(lanes, grid.time, [x_ref], cleared[0] if cleared else None, out_ref)
        loop.run(token, numbers.zeros(2), ())

    cleared = [] if starts is None else [restarts(starts, reverse)]
    return pl.pallas_call(
        kernel,
        name="ema_reversed" if reverse else "ema",
        grid=grid.programs,
        in_specs=[grid.table(rows), grid.activations(), *(grid.restarts() for _ in cleared)],
        out_specs=grid.activations(),
        out_shape=jax.ShapeDtypeStruct(x.shape, x.dtype),
        compiler_params=triton.CompilerParams(num_warps=1, num_stages=1),
        cost_estimate=_cost(x, table, multiply_adds=5, nbytes=2 * x.nbytes + table.nbytes),
        interpret=interpret,
    )(table, x, *cleared)


def _table_gradient(
    x: Float[Array, "batch time dim"],
    grad: Float[Array, "batch time dim"],
    table: Float[Array, "rows dim"],
    starts: Bool[Array, "batch time"] | None,
    interpret: bool,
) -> Float[Array, "rows dim"]:
    """Return the derivative with respect to the table.

    As transfer functions of the delay z, with D = (1 - r z)^2 + s^2 z^2: u = (1 - r z) x / D and
    v = z x / D. The second stage's U and V are the same of v instead of x. Hence
    du/dr = v - 2 s^2 z V, dv/dr = 2 z U, du/ds^2 = -z U, dv/ds^2 = -z V.
    """
    sums = _products(x, grad, table, starts, interpret)
    shape = (-1, 4, table.shape[1])
    to_u, to_v, to_second_u, to_second_v = sums[:-1].reshape(shape).swapaxes(0, 1)
    _, minus_square, a, b = table[:-1].reshape(shape).swapaxes(0, 1)
    to_r = a * (to_v + 2.0 * minus_square * to_second_v) + 2.0 * b * to_second_u
    to_minus_square = a * to_second_u + b * to_second_v
    rows = jnp.stack([to_r, to_minus_square, to_u, to_v], 1).reshape(-1, table.shape[1])
    return jnp.concatenate([rows, sums[-1:]])


def _products(
    x: Float[Array, "batch time dim"],
    grad: Float[Array, "batch time dim"],
    table: Float[Array, "rows dim"],
    starts: Bool[Array, "batch time"] | None,
    interpret: bool,
) -> Float[Array, "rows dim"]:
    """Return, summed over all tokens, dy_t times u_t, v_t, U_{t-1} and V_{t-1}.

    These of each order; then dy_t times x_t.
    """
    order = len(table) // 4
    parts = _parts(x, order, multiply_adds=10)
    table = _split(table, parts)
    rows = len(table)
    grid, fma = Grid.over(x, parts), multiply_add(interpret)

    def kernel(table_ref: Ref, x_ref: Ref, grad_ref: Ref, *refs: Ref) -> None:
        lanes = Lanes(grid)
        numbers = _Numbers(lanes, table_ref)

        def token(state: Any, sums: Any, x: Tile, grad: Tile) -> tuple[Any, Any, None]:
            after, added = [], []
            for order, (u, v, second_u, second_v), (to_u, to_v, to_second_u, to_second_v) in zip(
                numbers.orders, state, sums[0], strict=True
            ):
                to_second = fma(grad, second_u, to_second_u), fma(grad, second_v, to_second_v)
                u, v = _advance(fma, order, u, v, x)
                second_u, second_v = _advance(fma, order, second_u, second_v, v)
                after.append([u, v, second_u, second_v])
                added.append([fma(grad, u, to_u), fma(grad, v, to_v), *to_second])
            return after, (added, fma(grad, x, sums[1])), None

        *cleared, out_ref = refs
        loop = Loop(lanes, grid.time, [x_ref, grad_ref], cleared[0] if cleared else None)
        sums = (numbers.zeros(4), jnp.zeros_like(numbers.skip))
        orders, skip = loop.run(token, numbers.zeros(4), sums)
        for row, tile in enumerate([*(tile for order in orders for tile in order), skip]):
            lanes.write_row(out_ref, row, tile)

    cleared = [] if starts is None else [restarts(starts, reverse=False)]
    nbytes = x.nbytes + grad.nbytes + (1 + grid.batch) * table.nbytes
    sums: Array = pl.pallas_call(
        kernel,
        name="ema_coefficients",
        grid=grid.programs,
        in_specs=[
            grid.table(rows),
            grid.activations(),
            grid.activations(),
            *(grid.restarts() for _ in cleared),
        ],
        out_specs=grid.tables(rows),
        out_shape=jax.ShapeDtypeStruct((grid.batch, *table.shape), jnp.float32),
        compiler_params=triton.CompilerParams(num_warps=1, num_stages=1),
        cost_estimate=_cost(x, table, multiply_adds=10, nbytes=nbytes),
        interpret=interpret,
    )(table, x, grad, *cleared)
    return _join(sums.sum(0), order)


def _cost(x: Array, table: Array, *, multiply_adds: int, nbytes: int) -> pl.CostEstimate:
    """Return what a kernel costs with so many multiply-adds for each order and token."""
    orders = table.shape[0] // 4 * table.shape[1]
    return pl.CostEstimate(
        flops=2 * multiply_adds * orders * x.size, transcendentals=0, bytes_accessed=nbytes
    )
