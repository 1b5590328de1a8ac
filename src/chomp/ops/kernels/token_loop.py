"""The loop over time of a Pallas kernel on NVIDIA GPUs: one warp for a row and some channels.

A program has all of its state in registers and walks along time inside the kernel. Tiles are
[parts, channels] with as many entries as a warp has lanes, so that each lane has one value of each
tile, and the sum over parts is shuffles, never a barrier.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array, Bool, Float, Int

LANES = 32
# Tokens per turn of the loop. At most 32, as a turn's restarts are the bits of one number, and few,
# as the time that Triton takes to compile grows with the square.
TURN = 8
# Turns whose inputs are on their way while one is computed: some 800 cycles, what memory takes.
AHEAD = 2

Tile = Float[Array, "parts channels"]
Ref = Any
Step = Any


class Grid(NamedTuple):
    """The programs of a kernel over activations [batch, time, dim], and what each of them sees."""

    batch: int
    time: int
    dim: int
    parts: int
    """Lanes that share a channel."""

    @classmethod
    def over(cls, x: Float[Array, "batch time dim"], parts: int) -> "Grid":
        """Return the programs that cover `x`."""
        batch, time, dim = x.shape
        return cls(batch, time, dim, parts)

    @property
    def channels(self) -> int:
        """Channels of a program."""
        return LANES // self.parts

    @property
    def programs(self) -> tuple[int, int]:
        """Rows, and blocks of channels."""
        return self.batch, pl.cdiv(self.dim, self.channels)

    def activations(self) -> pl.BlockSpec:
        """Return the part of [batch, time, dim]."""
        return pl.BlockSpec((None, self.time, self.channels), lambda row, block: (row, 0, block))

    def table(self, rows: int) -> pl.BlockSpec:
        """Return the part of [rows, parts, dim]: one for all rows of the batch."""
        return pl.BlockSpec((rows, self.parts, self.channels), lambda row, block: (0, 0, block))

    def tables(self, rows: int) -> pl.BlockSpec:
        """Return the part of [batch, rows, parts, dim]."""
        shape = (None, rows, self.parts, self.channels)
        return pl.BlockSpec(shape, lambda row, block: (row, 0, 0, block))

    def restarts(self) -> pl.BlockSpec:
        """Return the part of what `restarts` returns."""
        return pl.BlockSpec((None, pl.cdiv(self.time, TURN)), lambda row, block: (row, 0))


def restarts(starts: Bool[Array, "batch time"], reverse: bool) -> Int[Array, "batch turns"]:
    """Return for each turn before which of its tokens the state is cleared, as bits.

    Args:
        starts: where documents start.
        reverse: the loop runs backwards in time.
    """
    if reverse:  # then the token before is the one behind
        starts = jnp.pad(starts[:, :0:-1], ((0, 0), (1, 0)))
    bits = jnp.pad(starts, ((0, 0), (0, -starts.shape[1] % TURN))).astype(jnp.int32)
    bits = bits.reshape(bits.shape[0], -1, TURN)
    return (bits << jnp.arange(TURN, dtype=jnp.int32)).sum(-1)


class Lanes:
    """How a program reads and writes tiles."""

    def __init__(self, grid: Grid, reverse: bool = False):
        self._time, self._reverse = grid.time, reverse
        self.shape = (grid.parts, grid.channels)
        self._channel = jax.lax.broadcasted_iota(jnp.int32, self.shape, 1)
        self._inside = self._inside_row = None
        if grid.dim % grid.channels:
            left = grid.dim - pl.program_id(1) * grid.channels
            self._inside = self._channel < left
            self._inside_row = jax.lax.iota(jnp.int32, grid.channels) < left

    def read(self, ref: Ref, step: Step) -> Tile:
        """Return the activations at a step, the same for all parts."""
        return self._load(ref.at[self._position(step), self._channel])

    def write(self, ref: Ref, step: Step, value: Tile) -> None:
        """Write the sum over parts to the activations at a step."""
        total = value.sum(0).astype(ref.dtype)
        triton.store(ref.at[self._position(step), :], total, mask=self._inside_row)

    def read_row(self, ref: Ref, row: int) -> Tile:
        """Return a row of a table."""
        return self._load(ref.at[jnp.int32(row)])

    def write_row(self, ref: Ref, row: int, value: Tile) -> None:
        """Write a row of a table."""
        triton.store(ref.at[jnp.int32(row)], value, mask=self._inside)

    def _load(self, ref: Ref) -> Tile:
        return triton.load(ref, mask=self._inside, other=None if self._inside is None else 0.0)

    def _position(self, step: Step) -> Array:
        return jnp.int32(self._time - 1 - step if self._reverse else step)


class Loop(NamedTuple):
    """A loop over time.

    Attributes:
        lanes: of the program.
        time: number of tokens.
        inputs: activations that a step reads.
        restarts: where the state is cleared, as `restarts` returns it; None: nowhere.
        output: what a step's third result is written to; None: nothing.
    """

    lanes: Lanes
    time: int
    inputs: Sequence[Ref]
    restarts: Ref | None
    output: Ref | None = None

    def run(self, token: Callable[..., tuple[Any, Any, Tile | None]], state: Any, sums: Any) -> Any:
        """Apply `token` to state, sums and the inputs of each step; return the last sums.

        Args:
            token: returns the next state, the next sums and what is to be written.
            state: before the first token of each document, all zeros.
            sums: before the first step; these run on from document to document.
        """
        turns, rest = divmod(self.time, TURN)

        def turn(number: Any, carry: tuple) -> tuple:
            ((bits, values), *ahead), state, sums = carry
            ahead.append(self._fetch(jnp.minimum(number + AHEAD, turns - 1), TURN))
            compute = functools.partial(_turn, token, None)
            if bits is not None:
                # Most turns have no restart, and selecting costs half as much as the arithmetic.
                selecting = functools.partial(_turn, token, bits)
                compute = functools.partial(jax.lax.cond, bits == 0, compute, selecting)
            state, sums, results = compute(values, state, sums)
            self._write(number, results)
            return ahead, state, sums

        if turns:
            ahead = [self._fetch(min(number, turns - 1), TURN) for number in range(AHEAD)]
            _, state, sums = jax.lax.fori_loop(0, turns, turn, (ahead, state, sums))
        if rest:
            bits, values = self._fetch(turns, rest)
            _, sums, results = _turn(token, bits, values, state, sums)
            self._write(turns, results)
        return sums

    def _fetch(self, number: Any, count: int) -> tuple[Any, list[list[Tile]]]:
        bits = None if self.restarts is None else self.restarts[number]
        steps = [number * TURN + j for j in range(count)]
        return bits, [[self.lanes.read(ref, step) for ref in self.inputs] for step in steps]

    def _write(self, number: Any, results: list[Tile | None]) -> None:
        for j, result in enumerate(results):
            if result is not None:
                self.lanes.write(self.output, number * TURN + j, result)


def _turn(
    token: Callable[..., tuple[Any, Any, Tile | None]],
    bits: Any,
    values: list[list[Tile]],
    state: Any,
    sums: Any,
) -> tuple[Any, Any, list[Tile | None]]:
    results = []
    for j, inputs in enumerate(values):
        if bits is not None:
            # Not a product with 0: a NaN of the document before would stay.
            starts = ((bits >> j) & 1) != 0
            state = jax.tree.map(lambda a, s=starts: jnp.where(s, 0.0, a), state)
        state, sums, result = token(state, sums, *(a.astype(jnp.float32) for a in inputs))
        results.append(result)
    return state, sums, results


def multiply_add(interpret: bool) -> Callable[[Tile, Tile, Tile], Tile]:
    """Return the function a b + c of tiles: for the GPU one instruction."""
    return (lambda a, b, c: a * b + c) if interpret else _fused


def _fused(a: Tile, b: Tile, c: Tile) -> Tile:
    # XLA has Triton leave products and sums apart.
    [result] = triton.elementwise_inline_asm(
        "fma.rn.f32 $0, $1, $2, $3;",
        args=[a, b, c],
        constraints="=f,f,f,f",
        pack=1,
        result_shape_dtypes=[jax.ShapeDtypeStruct(a.shape, a.dtype)],
    )
    return result
