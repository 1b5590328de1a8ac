"""Complex exponential moving average without a loop: short sums, products and a prefix of states.

What it computes is in `chomp.ops.complex_ema`; time is cut into chunks here too. Within a chunk
each output is a sum over at most a chunk of earlier inputs, cut off where its document begins:
one pass over memory, and exact for any number of documents in a chunk. Past chunks reach an
output through their states of 2N real numbers a channel, whose prefix is two or three such short
sums over chunks, over groups of chunks, and so on.

Documents enter through two numbers alone: how many tokens of its document come before a token,
and how many after it. A document that isn't reached is chosen away, never multiplied by zero.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from chomp.ops.complex_ema import Coefficients

CHUNK = 32
"""Tokens; the states take as much memory as the inputs where it is twice the order."""
GROUP = 8
"""States that one short sum of the prefix covers."""


def complex_ema(
    x: Float[Array, "batch time dim"],
    coefficients: Coefficients,
    skip: Float[Array, " dim"],
    positions: Int[Array, "batch time"] | None = None,
    chunk: int = CHUNK,
) -> Float[Array, "batch time dim"]:
    """Return the moving average of `x` along time plus `skip` x, in the dtype of `x`.

    All sums are float32. Products with states take their operands in TF32 if `x` is bfloat16 (and
    the device has it): bfloat16 fits into it exactly, and the coefficients are rounded to 11 bits
    where the result is rounded to 8.

    Args:
        x: input.
        coefficients: of the average.
        skip: weight of the input itself in the output.
        positions: each token's position in its document, at which the average restarts; None: one
            stream.
        chunk: tokens per chunk.
    """
    batch, time, _ = x.shape
    if positions is None:
        positions = jnp.broadcast_to(jnp.arange(time), (batch, time))
    return _average(x, _matrices(coefficients, skip, chunk), positions)


class _Matrices(NamedTuple):
    """What the coefficients come to, by channel."""

    taps: Float[Array, "dim chunk"]
    """Weight of the input so many tokens ago."""
    inward: Float[Array, "dim chunk states"]
    """Of a chunk's tokens in the state after it, which leaves out the factor p."""
    outward: Float[Array, "dim states chunk"]
    """Of the state before a chunk in its outputs."""
    decay: Float[Array, "2 dim order"]
    """Of the state from chunk to chunk: real and imaginary part."""


def _matrices(coefficients: Coefficients, skip: Array, chunk: int) -> _Matrices:
    p, magnitude, phase, gamma_real, gamma_imag = coefficients
    q_real, q_imag = magnitude * jnp.cos(phase), magnitude * jnp.sin(phase)
    real, imag, decay = _powers(q_real, q_imag, chunk)
    a, b = (gamma_real * p)[..., None], (gamma_imag * p)[..., None]
    taps = (a * real - b * imag).sum(axis=1)
    taps = taps.at[:, 0].add(skip)
    q_real, q_imag = q_real[..., None], q_imag[..., None]
    next_real, next_imag = real * q_real - imag * q_imag, real * q_imag + imag * q_real
    outward = jnp.concatenate([a * next_real - b * next_imag, -a * next_imag - b * next_real], 1)
    inward = jnp.concatenate([real, imag], axis=1)[..., ::-1].swapaxes(1, 2)
    return _Matrices(taps, inward, outward, decay)


def _powers(
    real: Float[Array, "dim order"], imag: Float[Array, "dim order"], count: int
) -> tuple[Array, Array, Float[Array, "2 dim order"]]:
    """Return q^0 .. q^(count-1) along a new last axis as real and imaginary parts, and q^count.

    Each power as the product of squarings that its number's bits name: elementwise, so that it is
    part of what uses it. Exact as repeated multiplication, and nothing goes wrong at q = 0.
    """
    number = jnp.arange(count)
    shape = (*real.shape, count)
    all_real, all_imag = jnp.ones(shape), jnp.zeros(shape)
    last = jnp.stack([jnp.ones_like(real), jnp.zeros_like(real)])
    for bit in range(count.bit_length()):
        r, i = real[..., None], imag[..., None]
        chosen = (number >> bit) & 1 == 1
        all_real, all_imag = (
            jnp.where(chosen, all_real * r - all_imag * i, all_real),
            jnp.where(chosen, all_real * i + all_imag * r, all_imag),
        )
        if (count >> bit) & 1:
            a, b = last
            last = jnp.stack([a * real - b * imag, a * imag + b * real])
        real, imag = real * real - imag * imag, 2.0 * real * imag
    return all_real, all_imag, last


class _Level(NamedTuple):
    """One level of the prefix of states: chunks in groups, then those in groups, and so on."""

    reach: Int[Array, "groups group"]
    """How many members, besides the one before it, the state before each member goes back; -1: the
    state is empty."""
    onward: Int[Array, " groups"]
    """The same of the state after each group."""


class _Layout(NamedTuple):
    """Where documents lie in the chunks of all rows, one after the other."""

    back: Int[Array, " tokens"]
    """Tokens before each that are of its document and chunk."""
    ahead: Int[Array, " tokens"]
    """The same after it."""
    entered: Bool[Array, "chunks chunk"]
    """The token's document began before the chunk."""
    left: Bool[Array, "chunks chunk"]
    """The token's document goes on at the chunk's end."""
    passes: Bool[Array, " chunks"]
    """One document fills the chunk and began before it: the state passes through."""
    levels: tuple[_Level, ...]
    """Of the states before the chunks."""
    levels_back: tuple[_Level, ...]
    """The same backward in time, of the states after the chunks."""


def _layout(positions: Int[Array, "batch time"], chunk: int) -> _Layout:
    """Describe rows of whole chunks."""
    batch, time = positions.shape
    begins = jnp.pad(positions[:, 1:] == 0, ((0, 0), (0, 1)), constant_values=True)
    number = jnp.arange(time)
    last = jax.lax.cummin(jnp.where(begins, number, time), axis=1, reverse=True)
    past, future = positions.reshape(-1, chunk), (last - number).reshape(-1, chunk)
    place = jnp.arange(chunk)
    return _Layout(
        back=jnp.minimum(past, place).reshape(-1),
        ahead=jnp.minimum(future, chunk - 1 - place).reshape(-1),
        entered=past > place,
        left=future >= chunk - 1 - place,
        passes=past[:, -1] >= chunk,
        levels=_levels((past[:, 0] - 1) // chunk, batch),
        levels_back=_levels((future[::-1, -1] - 1) // chunk, batch),
    )


def _levels(reach: Int[Array, " chunks"], rows: int) -> tuple[_Level, ...]:
    """Return the levels of a prefix; groups are of one row each."""
    each = reach.shape[0] // rows
    pad = -each % GROUP
    padded = jnp.pad(reach.reshape(rows, each), ((0, 0), (0, pad)), constant_values=-1)
    grouped = padded.reshape(-1, GROUP)
    onward = jnp.pad(grouped[1:, 0], (0, 1), constant_values=-1)
    level = _Level(grouped, onward)
    if each <= GROUP:
        return (level,)
    return (level, *_levels(grouped[:, 0] // GROUP, rows))


def _channels_first(
    x: Float[Array, "batch time dim"], chunk: int
) -> Float[Array, "dim margin+tokens+margin"]:
    """Return all rows one after the other, each padded to whole chunks, within two margins.

    The margins, of a chunk's length, are there for `_lagged`. The barrier keeps XLA from computing
    slices of what it has fused with their use once for several uses, and writing each to memory.
    """
    padded = jnp.pad(x, ((0, 0), (0, -x.shape[1] % chunk), (0, 0))).reshape(-1, x.shape[-1])
    return jax.lax.optimization_barrier(jnp.pad(padded, ((chunk, chunk), (0, 0))).T)


def _lagged(
    x: Float[Array, "dim margin+tokens+margin"], by: int, chunk: int
) -> Float[Array, "dim tokens"]:
    """Return the tokens so many before each (after it, where negative)."""
    tokens = x.shape[1] - 2 * chunk
    start = chunk - by
    return jax.lax.slice_in_dim(x, start, start + tokens, axis=1).astype(jnp.float32)


def _channels_last(x: Float[Array, "dim tokens"], batch: int, time: int) -> Array:
    return x.T.reshape(batch, -1, x.shape[0])[:, :time]


@jax.custom_vjp
def _average(x: Array, matrices: _Matrices, positions: Array) -> Array:
    return _forward(x, matrices, positions)[0]


def _forward(x: Array, matrices: _Matrices, positions: Array) -> tuple[Array, tuple]:
    batch, time, dim = x.shape
    chunk = matrices.taps.shape[1]
    layout = _layout(_padded(positions, chunk), chunk)
    first = _channels_first(x, chunk)
    entering = jnp.where(layout.left, _wide(first, chunk), 0.0)
    states = _prefix(_product(entering, matrices.inward, x.dtype), matrices.decay, layout.levels)
    passed = jnp.where(layout.entered, _product(states, matrices.outward, x.dtype), 0.0)
    result = _short_sums(first, matrices.taps, layout.back, 1) + passed.reshape(dim, -1)
    result = _channels_last(result.astype(x.dtype), batch, time)
    return result, (x, matrices, layout, states)


def _backward(saved: tuple, grad: Array) -> tuple[Array, _Matrices, None]:
    x, matrices, layout, states = saved
    # Without this barrier XLA joins what several layers do with the same masks, which keeps the
    # gradients of all of them until the end and reads them once for each tap.
    x, layout, states, grad = jax.lax.optimization_barrier((x, layout, states, grad))
    batch, time, dim = x.shape
    chunk = matrices.taps.shape[1]
    first, above = _channels_first(x, chunk), _channels_first(grad, chunk)
    to_passed = jnp.where(layout.entered, _wide(above, chunk), 0.0)
    to_states = _product(to_passed, matrices.outward.swapaxes(1, 2), x.dtype)
    real, imag = matrices.decay
    conjugate = jnp.stack([real, -imag])
    to_added = _prefix(to_states[:, ::-1], conjugate, layout.levels_back)[:, ::-1]
    to_entering = _product(to_added, matrices.inward.swapaxes(1, 2), x.dtype)
    to_entering = jnp.where(layout.left, to_entering, 0.0)
    to_x = _short_sums(above, matrices.taps, layout.ahead, -1)
    to_x = _channels_last((to_x + to_entering.reshape(dim, -1)).astype(x.dtype), batch, time)

    entering = jnp.where(layout.left, _wide(first, chunk), 0.0)
    passes = jnp.where(layout.passes[:, None], to_added, 0.0)
    (add_real, add_imag), (at_real, at_imag) = _halves(passes), _halves(states)
    to_matrices = _Matrices(
        taps=_correlation(first, above, layout.back, chunk),
        inward=_product(entering.swapaxes(1, 2), to_added, x.dtype),
        outward=_product(states.swapaxes(1, 2), to_passed, x.dtype),
        decay=jnp.stack(
            [
                (add_real * at_real + add_imag * at_imag).sum(axis=1),
                (add_imag * at_real - add_real * at_imag).sum(axis=1),
            ]
        ),
    )
    return to_x, to_matrices, None


_average.defvjp(_forward, _backward)


def _padded(positions: Int[Array, "batch time"], chunk: int) -> Int[Array, "batch padded"]:
    """Extend rows to whole chunks by tokens that are documents of their own."""
    return jnp.pad(positions, ((0, 0), (0, -positions.shape[1] % chunk)))


def _wide(
    x: Float[Array, "dim margin+tokens+margin"], chunk: int
) -> Float[Array, "dim chunks chunk"]:
    return _lagged(x, 0, chunk).reshape(x.shape[0], -1, chunk)


def _product(a: Array, b: Array, dtype: jnp.dtype) -> Float[Array, "dim _ _"]:
    precision = jax.lax.Precision.HIGHEST if dtype == jnp.float32 else None
    return jnp.matmul(a, b, precision=precision)


def _halves(states: Float[Array, "dim chunks states"]) -> tuple[Array, Array]:
    order = states.shape[-1] // 2
    return states[..., :order], states[..., order:]


def _shifted(x: Array, by: int, axis: int) -> Array:
    """Move along an axis, forward or (if negative) backward; what comes in is zero."""
    size = x.shape[axis]
    by = max(-size, min(by, size))
    low, high = max(by, 0), max(-by, 0)
    kept = jax.lax.slice_in_dim(x, high, size - low, axis=axis)
    widths = [(0, 0)] * x.ndim
    widths[axis] = (low, high)
    return jnp.pad(kept, widths)


def _short_sums(
    x: Float[Array, "dim margin+tokens+margin"],
    taps: Float[Array, "dim chunk"],
    reach: Int[Array, " tokens"],
    step: int,
) -> Float[Array, "dim tokens"]:
    """Return the weighted sum of each token and up to `reach` before it (`step` -1: after)."""
    total = jnp.zeros(())
    chunk = taps.shape[1]
    for lag in range(chunk):
        moved = _lagged(x, step * lag, chunk) * taps[:, lag, None]
        total += jnp.where(lag <= reach, moved, 0.0)
    return total


def _correlation(
    x: Float[Array, "dim margin+tokens+margin"],
    grad: Float[Array, "dim margin+tokens+margin"],
    reach: Int[Array, " tokens"],
    chunk: int,
) -> Float[Array, "dim chunk"]:
    """Return the derivative of `_short_sums` with respect to the taps."""
    here = _lagged(grad, 0, chunk)
    # Two stages, the second for all taps at once; XLA would launch one for each.
    parts = [
        jnp.where(lag <= reach, here * _lagged(x, lag, chunk), 0.0)
        .reshape(x.shape[0], -1, math.gcd(reach.size, chunk * GROUP))
        .sum(axis=-1)
        for lag in range(chunk)
    ]
    return jnp.stack(parts, axis=1).sum(axis=-1)


def _prefix(
    added: Float[Array, "dim chunks states"],
    decay: Float[Array, "2 dim order"],
    levels: tuple[_Level, ...],
) -> Float[Array, "dim chunks states"]:
    """Return the state before each chunk: H_m = sum of decay^s added_(m-1-s) over s <= reach_m.

    Each group of chunks is summed alone; the states before the groups are a shorter prefix of the
    same kind.
    """
    dim, chunks, width = added.shape
    (reach, onward), *above = levels
    count = reach.shape[0]
    rows = levels[-1].reach.shape[0]  # the last level has one group for each row
    each = chunks // rows
    pad = count // rows * GROUP - each
    grouped = jnp.pad(added.reshape(dim, rows, each, width), ((0, 0), (0, 0), (0, pad), (0, 0)))
    grouped = grouped.reshape(dim, count, GROUP, width)
    halves = _halves(grouped)
    power = _powers_of(decay, GROUP)
    place = jnp.arange(GROUP)
    real, imag = jnp.zeros(()), jnp.zeros(())
    for lag in range(GROUP - 1):
        inside = (lag < place) & (lag <= reach)
        moved = _times(power[lag], tuple(_shifted(half, lag + 1, 2) for half in halves))
        real += jnp.where(inside[:, :, None], moved[0], 0.0)
        imag += jnp.where(inside[:, :, None], moved[1], 0.0)
    if above:
        ends = [jnp.zeros(()), jnp.zeros(())]
        for lag in range(GROUP):
            last = _times(power[lag], tuple(half[:, :, GROUP - 1 - lag] for half in halves), 1)
            for i in range(2):
                ends[i] += jnp.where((lag <= onward)[:, None], last[i], 0.0)
        carried = _prefix(jnp.concatenate(ends, -1), power[GROUP], tuple(above))
        factors = jnp.stack(power[:GROUP], axis=2)  # [2, dim, group, order]
        before = tuple(half[:, :, None] for half in _halves(carried))
        moved = _times(factors, before, 1)
        entered = (place <= reach)[:, :, None]
        real += jnp.where(entered, moved[0], 0.0)
        imag += jnp.where(entered, moved[1], 0.0)
    states = jnp.concatenate([real, imag], axis=-1).reshape(dim, rows, -1, width)
    return states[:, :, :each].reshape(dim, chunks, width)


def _powers_of(decay: Float[Array, "2 dim order"], count: int) -> list[Array]:
    """Return the powers from 0 to `count` as pairs of real and imaginary part."""
    power = [jnp.stack([jnp.ones_like(decay[0]), jnp.zeros_like(decay[0])])]
    for _ in range(count):
        (a, b), (c, d) = power[-1], decay
        power.append(jnp.stack([a * c - b * d, a * d + b * c]))
    return power


def _times(factor: Array, x: tuple[Array, ...], axes: int = 2) -> tuple[Array, Array]:
    """Multiply complex numbers [dim, ..., order] by a factor for each channel and order."""
    a, b = jnp.expand_dims(factor, tuple(range(2, 2 + axes)))
    return a * x[0] - b * x[1], a * x[1] + b * x[0]
