"""Complex exponential moving average as GPU kernels, over one stream or isolated documents.

The average of `chomp.ops.complex_ema`, token by token, with its state in registers: x is read once
and y written once, channels last. Written in Pallas for its Triton lowering: NVIDIA GPUs.

For each channel and order, with q = r + i s and c = gamma p, the state is (u, v): its real part
and its imaginary part over s. Scaled so, a token costs five multiply-adds an order instead of six,
and nothing is divided by s:

    v_t = r v_{t-1} + u_{t-1}        u_t = r u_{t-1} - s^2 v_{t-1} + x_t
    y_t = skip x_t + sum_n (a u_t + b v_t)        a = Re c        b = -s Im c

The derivative with respect to x is the same average of dy with time reversed. Those with respect
to r and s^2 need a second stage whose input is v, and all four a sum over time, so a second pass
over x and dy keeps nothing but registers.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array, Float, Int

from chomp.ops.complex_ema import Coefficients

# Tokens per turn of the loop over time. At most 32, as a turn's restarts are the bits of one number;
# the time that Triton takes to compile grows with the square.
TURN = 8
# Turns whose inputs are on their way while one is computed: some 800 cycles, what memory takes.
AHEAD = 2
# A program is one warp: the sum over a channel's orders is then shuffles, never a barrier.
LANES = 32
# Warps that run at once, and instructions a token besides the orders' arithmetic: an H100's. For
# the choice between few programs with much to do for each token and many with little.
SCHEDULERS = 4 * 132
OVERHEAD = 12


def ema_kernel(
    x: Float[Array, "batch time dim"],
    coefficients: Coefficients,
    skip: Float[Array, " dim"] | None = None,
    runs: Int[Array, "batch time"] | None = None,
    interpret: bool = False,
) -> Float[Array, "batch time dim"]:
    """Return the moving average of `x` along time plus `skip * x`, in the dtype of `x`.

    Args:
        x: input, bfloat16 or float32; computed in float32.
        coefficients: of the average.
        skip: weight of the input itself by channel; None: 0.
        runs: numbers of the documents; the average restarts wherever the number changes. None:
            one stream.
        interpret: run as ordinary operations, on any platform and slowly.
    """
    batch, _, dim = x.shape
    order = coefficients.p.shape[1]
    parts = _parts(order, batch * dim)
    table = _table(coefficients, skip, parts)
    starts = None if runs is None else runs[:, 1:] != runs[:, :-1]
    return _average(x, table, starts, interpret)


def _parts(order: int, rows: int) -> int:
    """Return among how many lanes the orders of one channel are split.

    More lanes are more programs, for a chip that few would leave idle, but each has to load and to
    sum as before. A lane has at most 8 orders, so that all its numbers fit in registers.
    """
    def cycles(parts: int) -> int:
        warps = pl.cdiv(rows * parts, LANES)
        return pl.cdiv(warps, SCHEDULERS) * (5 * pl.cdiv(order, parts) + OVERHEAD)

    fitting = [parts for parts in (1, 2, 4, 8) if parts <= order <= 8 * parts]
    return min(fitting, key=cycles) if fitting else LANES


def _table(
    coefficients: Coefficients, skip: Float[Array, " dim"] | None, parts: int
) -> Float[Array, "rows parts dim"]:
    """Return r, -s^2, a and b of each order, then skip, channels last.

    Orders are filled up with zeros to a multiple of `parts`; only the first part has the skip.
    """
    p, magnitude, phase, gamma_real, gamma_imag = coefficients
    dim, order = p.shape
    s = magnitude * jnp.sin(phase)
    rows = jnp.stack([magnitude * jnp.cos(phase), -s * s, gamma_real * p, -s * gamma_imag * p])
    rows = jnp.pad(rows, ((0, 0), (0, 0), (0, -order % parts)))
    rows = rows.reshape(4, dim, parts, -1).transpose(3, 0, 2, 1).reshape(-1, parts, dim)
    weight = jnp.zeros((1, 1, dim)) if skip is None else skip.astype(jnp.float32)[None, None]
    return jnp.concatenate([rows, jnp.pad(weight, ((0, 0), (0, parts - 1), (0, 0)))])


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _average(
    x: Float[Array, "batch time dim"],
    table: Float[Array, "rows parts dim"],
    starts: Array | None,
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


class _Sizes(NamedTuple):
    """Sizes of a kernel's program: one row, and as many channels as a warp has lanes for."""

    time: int
    dim: int
    orders: int
    """Orders in a lane."""
    parts: int

    @classmethod
    def of(cls, x: Array, table: Array) -> "_Sizes":
        return cls(x.shape[1], x.shape[2], table.shape[0] // 4, table.shape[1])

    @property
    def channels(self) -> int:
        return LANES // self.parts

    def grid(self, batch: int) -> tuple[int, int]:
        return batch, pl.cdiv(self.dim, self.channels)

    def activations(self) -> pl.BlockSpec:
        return pl.BlockSpec((None, self.time, self.channels), lambda row, block: (row, 0, block))

    def table(self) -> pl.BlockSpec:
        shape = (4 * self.orders + 1, self.parts, self.channels)
        return pl.BlockSpec(shape, lambda row, block: (0, 0, block))

    def restarts(self) -> pl.BlockSpec:
        return pl.BlockSpec((None, pl.cdiv(self.time, TURN)), lambda row, block: (row, 0))


def _restarts(starts: Array, reverse: bool) -> Int[Array, "batch turns"]:
    """Return for each turn in which of its tokens the state restarts, as bits."""
    # Reversed, a token follows the one that is behind it in time.
    bits = jnp.pad(starts[:, ::-1] if reverse else starts, ((0, 0), (1, 0)))
    bits = jnp.pad(bits, ((0, 0), (0, -bits.shape[1] % TURN))).astype(jnp.int32)
    bits = bits.reshape(bits.shape[0], -1, TURN)
    return (bits << jnp.arange(TURN, dtype=jnp.int32)).sum(-1)


Tile = Float[Array, "parts channels"]
State = Sequence[Sequence[Tile]]


class _Lanes:
    """How a program reads and writes: tiles [parts, channels], of which a lane has one value."""

    def __init__(self, sizes: _Sizes, reverse: bool):
        self._sizes, self._reverse = sizes, reverse
        shape = (sizes.parts, sizes.channels)
        self._channel = jax.lax.broadcasted_iota(jnp.int32, shape, 1)
        self._tile = self._row = None
        if sizes.dim % sizes.channels:
            left = sizes.dim - pl.program_id(1) * sizes.channels
            self._tile = self._channel < left
            self._row = jax.lax.broadcasted_iota(jnp.int32, shape[1:], 0) < left

    def coefficients(self, ref: Any) -> tuple[list[list[Tile]], Tile]:
        """Return r, -s^2, a and b of each of a lane's orders, and skip."""
        rows = [self._load(ref.at[jnp.int32(row)], self._tile) for row in range(ref.shape[0])]
        return [rows[4 * n : 4 * n + 4] for n in range(self._sizes.orders)], rows[-1]

    def read(self, ref: Any, step: Any) -> Tile:
        """Return the values at a step: all parts of a channel have the same one."""
        return self._load(ref.at[self._time(step), self._channel], self._tile)

    def write(self, ref: Any, step: Any, value: Tile) -> None:
        """Write the sum over the parts."""
        total = value.sum(0).astype(ref.dtype)
        triton.store(ref.at[self._time(step), :], total, mask=self._row)

    def write_row(self, ref: Any, row: int, value: Tile) -> None:
        """Write a tile as it is."""
        triton.store(ref.at[jnp.int32(row)], value, mask=self._tile)

    def _load(self, ref: Any, mask: Array | None) -> Array:
        return triton.load(ref, mask=mask, other=None if mask is None else 0.0)

    def _time(self, step: Any) -> Any:
        return jnp.int32(self._sizes.time - 1 - step if self._reverse else step)


def _walk(
    sizes: _Sizes,
    lanes: _Lanes,
    inputs: Sequence[Any],
    restarts: Any,
    token: Callable[..., tuple[Any, Any, Tile | None]],
    state: Any,
    sums: Any,
    output: Any = None,
) -> Any:
    """Apply `token` to the state, the sums and the inputs of each step; return the last sums.

    The state is zero at the first step and where a document starts.
    """

    def fetch(first: Any, count: int) -> list[list[Tile]]:
        return [[lanes.read(ref, first + j) for ref in inputs] for j in range(count)]

    def tokens(bits: Any, fetched: list[list[Tile]], state: Any, sums: Any) -> tuple:
        outs = []
        for j, values in enumerate(fetched):
            if bits is not None:
                # Not a product with 0: a NaN of the document before would stay.
                starts = ((bits >> j) & 1) != 0
                state = jax.tree.map(lambda a, s=starts: jnp.where(s, 0.0, a), state)
            state, sums, out = token(state, sums, *(v.astype(jnp.float32) for v in values))
            outs.append(out)
        return state, sums, outs

    def emit(first: Any, outs: list[Tile]) -> None:
        for j, out in enumerate(outs):
            if output is not None:
                lanes.write(output, first + j, out)

    turns, rest = divmod(sizes.time, TURN)

    def fetch_turn(number: Any, count: int = TURN) -> tuple[Any, list[list[Tile]]]:
        return None if restarts is None else restarts[number], fetch(number * TURN, count)

    def turn(number: Any, carry: tuple) -> tuple:
        ((bits, fetched), *ahead), state, sums = carry
        ahead.append(fetch_turn(jnp.minimum(number + AHEAD, turns - 1)))
        run = functools.partial(tokens, None)
        if bits is not None:
            # Most turns have no restart, and selecting costs half as much as the arithmetic.
            run = functools.partial(jax.lax.cond, bits == 0, run, functools.partial(tokens, bits))
        state, sums, outs = run(fetched, state, sums)
        emit(number * TURN, outs)
        return ahead, state, sums

    if turns:
        ahead = [fetch_turn(min(number, turns - 1)) for number in range(AHEAD)]
        _, state, sums = jax.lax.fori_loop(0, turns, turn, (ahead, state, sums))
    if rest:
        bits, fetched = fetch_turn(turns, rest)
        _, sums, outs = tokens(bits, fetched, state, sums)
        emit(turns * TURN, outs)
    return sums


def _zeros(sizes: _Sizes, each: int) -> list[list[Tile]]:
    """Return `each` tiles for each of a lane's orders."""
    tile = jnp.zeros((sizes.parts, sizes.channels), jnp.float32)
    return [[tile] * each for _ in range(sizes.orders)]


MultiplyAdd = Callable[[Tile, Tile, Tile], Tile]


def _fused_multiply_add(a: Tile, b: Tile, c: Tile) -> Tile:
    """Return a b + c as one instruction, which XLA doesn't make of two."""
    [result] = triton.elementwise_inline_asm(
        "fma.rn.f32 $0, $1, $2, $3;",
        args=[a, b, c],
        constraints="=f,f,f,f",
        pack=1,
        result_shape_dtypes=[jax.ShapeDtypeStruct(a.shape, a.dtype)],
    )
    return result


def _multiply_add(interpret: bool) -> MultiplyAdd:
    return (lambda a, b, c: a * b + c) if interpret else _fused_multiply_add


def _advance(
    fma: MultiplyAdd, coefficients: Sequence[Tile], u: Tile, v: Tile, x: Tile
) -> tuple[Tile, Tile]:
    """Return the next u and v."""
    r, minus_square, *_ = coefficients
    return fma(r, u, fma(minus_square, v, x)), fma(r, v, u)


def _filter(
    x: Float[Array, "batch time dim"],
    table: Float[Array, "rows parts dim"],
    starts: Array | None,
    interpret: bool,
    *,
    reverse: bool,
) -> Float[Array, "batch time dim"]:
    sizes, batch, fma = _Sizes.of(x, table), x.shape[0], _multiply_add(interpret)

    def kernel(table_ref: Any, x_ref: Any, *refs: Any) -> None:
        *restarts, out_ref = refs
        lanes = _Lanes(sizes, reverse)
        coefficients, skip = lanes.coefficients(table_ref)

        def token(state: State, sums: Any, x: Tile) -> tuple[Any, Any, Tile]:
            out, after = skip * x, []
            for each, (u, v) in zip(coefficients, state, strict=True):
                u, v = _advance(fma, each, u, v, x)
                out = fma(each[3], v, fma(each[2], u, out))
                after.append([u, v])
            return after, sums, out

        state = _zeros(sizes, 2)
        _walk(sizes, lanes, [x_ref], *(restarts or [None]), token, state, (), out_ref)

    restarts = [] if starts is None else [_restarts(starts, reverse)]
    return pl.pallas_call(
        kernel,
        name="ema_reversed" if reverse else "ema",
        grid=sizes.grid(batch),
        in_specs=[sizes.table(), sizes.activations(), *(sizes.restarts() for _ in restarts)],
        out_specs=sizes.activations(),
        out_shape=jax.ShapeDtypeStruct(x.shape, x.dtype),
        compiler_params=triton.CompilerParams(num_warps=1, num_stages=1),
        cost_estimate=_cost(sizes, batch, 10, 2 * x.nbytes + table.nbytes),
        interpret=interpret,
    )(table, x, *restarts)


def _table_gradient(
    x: Float[Array, "batch time dim"],
    grad: Float[Array, "batch time dim"],
    table: Float[Array, "rows parts dim"],
    starts: Array | None,
    interpret: bool,
) -> Float[Array, "rows parts dim"]:
    """Return the derivative with respect to the table.

    With U and V the second stage's state, the four sums of an order are those of dy_t times U and
    V at t - 1, then u and v at t. As transfer functions of the delay z, with D = (1 - r z)^2 +
    s^2 z^2: u = (1 - r z) x / D, v = z x / D, and U and V are the same of v instead of x. Hence
    du/dr = v - 2 s^2 z V, dv/dr = 2 z U, du/ds^2 = -z U, dv/ds^2 = -z V.
    """
    sizes, batch, fma = _Sizes.of(x, table), x.shape[0], _multiply_add(interpret)

    def kernel(table_ref: Any, x_ref: Any, grad_ref: Any, *refs: Any) -> None:
        *restarts, out_ref = refs
        lanes = _Lanes(sizes, reverse=False)
        coefficients, _ = lanes.coefficients(table_ref)

        def token(state: State, sums: Any, x: Tile, grad: Tile) -> tuple[Any, Any, None]:
            after, added = [], []
            for each, (u, v, second_u, second_v), (to_second_u, to_second_v, to_u, to_v) in zip(
                coefficients, state, sums[0], strict=True
            ):
                to_second_u = fma(grad, second_u, to_second_u)
                to_second_v = fma(grad, second_v, to_second_v)
                u, v = _advance(fma, each, u, v, x)
                second_u, second_v = _advance(fma, each, second_u, second_v, v)
                after.append([u, v, second_u, second_v])
                added.append([to_second_u, to_second_v, fma(grad, u, to_u), fma(grad, v, to_v)])
            return after, (added, fma(grad, x, sums[1])), None

        start = (_zeros(sizes, 4), _zeros(sizes, 1)[0][0])
        state = _zeros(sizes, 4)
        inputs = [x_ref, grad_ref]
        sums, skip = _walk(sizes, lanes, inputs, *(restarts or [None]), token, state, start)
        for row, tile in enumerate([*(tile for order in sums for tile in order), skip]):
            lanes.write_row(out_ref, row, tile)

    restarts = [] if starts is None else [_restarts(starts, reverse=False)]
    per_row = sizes.table()
    sums = pl.pallas_call(
        kernel,
        name="ema_coefficients",
        grid=sizes.grid(batch),
        in_specs=[
            sizes.table(),
            *(sizes.activations() for _ in range(2)),
            *(sizes.restarts() for _ in restarts),
        ],
        out_specs=pl.BlockSpec(
            (None, *per_row.block_shape), lambda row, block: (row, *per_row.index_map(row, block))
        ),
        out_shape=jax.ShapeDtypeStruct((batch, *table.shape), jnp.float32),
        compiler_params=triton.CompilerParams(num_warps=1, num_stages=1),
        cost_estimate=_cost(
            sizes, batch, 20, x.nbytes + grad.nbytes + (batch + 1) * table.nbytes
        ),
        interpret=interpret,
    )(table, x, grad, *restarts).sum(0)
    to_second_u, to_second_v, to_u, to_v = sums[:-1].reshape(-1, 4, *table.shape[1:]).swapaxes(0, 1)
    _, minus_square, a, b = table[:-1].reshape(-1, 4, *table.shape[1:]).swapaxes(0, 1)
    to_r = a * (to_v + 2.0 * minus_square * to_second_v) + 2.0 * b * to_second_u
    to_minus_square = a * to_second_u + b * to_second_v
    rows = jnp.stack([to_r, to_minus_square, to_u, to_v], 1).reshape(-1, *table.shape[1:])
    return jnp.concatenate([rows, sums[-1:]])


def _cost(sizes: _Sizes, batch: int, per_order: int, nbytes: int) -> pl.CostEstimate:
    """Count the floating-point operations of each order and token, and the bytes."""
    tokens = batch * sizes.time * sizes.dim
    flops = tokens * per_order * sizes.orders * sizes.parts
    return pl.CostEstimate(flops=flops, transcendentals=0, bytes_accessed=nbytes)
