"""Complex exponential moving average on a CPU, over one stream or isolated documents.

Per channel d and order n, with complex q and |q| < 1 (Megalodon, arXiv:2404.08801, eq. 3):

    h_t = q h_{t-1} + p x_t        y_t = Re sum_n gamma h_t

As a convolution its kernel is k[tau] = Re sum_n gamma p q^tau. Time is cut into chunks: inside a
chunk the average is a short convolution with k, and a state of 2N real numbers per channel carries
the past from chunk to chunk, the structure of chunked state space models (Dao and Gu,
arXiv:2405.21060). Only powers of q up to the chunk's length are needed, and no FFT.

Sums are over slices whose innermost axis is the channels': a compiler for CPUs makes one loop of
each, over whole vector registers, where a product of small matrices for every channel would need
the activations transposed. What a token doesn't see, of another document, is left out of a sum by
choice, not multiplied by zero, so that isolation is exact.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

CHUNK = 16


class Coefficients(NamedTuple):
    """The average's coefficients by channel and order."""

    p: Float[Array, "dim order"]
    """Weight of the input."""
    magnitude: Float[Array, "dim order"]
    """|q|, below 1."""
    phase: Float[Array, "dim order"]
    """Angle of q in radians."""
    gamma_real: Float[Array, "dim order"]
    gamma_imag: Float[Array, "dim order"]


def complex_ema(
    x: Float[Array, "batch time dim"],
    coefficients: Coefficients,
    skip: Float[Array, " dim"] | None = None,
    positions: Int[Array, "batch time"] | None = None,
    chunk: int = CHUNK,
) -> Float[Array, "batch time dim"]:
    """Return the moving average of `x` along time, in float32.

    Args:
        x: input; computed in float32 whatever its dtype.
        coefficients: of the average.
        skip: weight of the input itself, added to the average; None: zero.
        positions: each token's position in its document, where the average begins anew; None: one
            stream.
        chunk: tokens per chunk.
    """
    batch, time, _ = x.shape
    if positions is None:
        positions = jnp.broadcast_to(jnp.arange(time), (batch, time))
    pad = -time % chunk
    x = jnp.pad(x.astype(jnp.float32), ((0, 0), (0, pad), (0, 0)))
    positions = jnp.pad(positions, ((0, 0), (0, pad)))
    kernel, inward, outward, decay = _weights(coefficients, chunk)
    if skip is not None:
        kernel = kernel.at[0].add(skip)
    place = jnp.arange(time + pad) % chunk
    ends = positions[:, chunk - 1 :: chunk]
    first = positions > place
    last = chunk - 1 - place <= jnp.repeat(ends, chunk, axis=1)
    result = _within(x, kernel, jnp.minimum(positions, place))
    states = _carry(_into_states(x, inward, last), decay, ends >= chunk)
    return (result + _out_of_states(states, outward, first))[:, :time]


def _weights(
    coefficients: Coefficients, chunk: int
) -> tuple[
    Float[Array, "chunk dim"],
    Float[Array, "chunk 2*order dim"],
    Float[Array, "chunk 2*order dim"],
    tuple[Float[Array, "order dim"], Float[Array, "order dim"]],
]:
    """Return the kernel, what goes into the state and out of it, and the state's decay.

    The state is h without the factor p, which is taken on the way out: real parts first.
    """
    p, magnitude, phase, gamma_real, gamma_imag = (array.T for array in coefficients)
    q_real, q_imag = magnitude * jnp.cos(phase), magnitude * jnp.sin(phase)
    real, imag, decay = _powers(q_real, q_imag, chunk)
    a, b = gamma_real * p, gamma_imag * p
    kernel = (a * real - b * imag).sum(axis=1)
    next_real, next_imag = real * q_real - imag * q_imag, real * q_imag + imag * q_real
    outward = jnp.concatenate([a * next_real - b * next_imag, -a * next_imag - b * next_real], 1)
    inward = jnp.concatenate([real, imag], axis=1)[::-1]
    return kernel, inward, outward, decay


def _powers(
    real: Float[Array, "order dim"], imag: Float[Array, "order dim"], count: int
) -> tuple[Array, Array, tuple[Array, Array]]:
    """Return q^0 .. q^(count-1) along a new first axis as real and imaginary parts, and q^count.

    By doubling: its error grows like that of exp(count log q), and there is nothing to go wrong
    at q = 0.
    """
    powers_real, powers_imag = jnp.ones((1, *real.shape)), jnp.zeros((1, *real.shape))
    while powers_real.shape[0] < count:
        powers_real, powers_imag = (
            jnp.concatenate([powers_real, powers_real * real - powers_imag * imag]),
            jnp.concatenate([powers_imag, powers_real * imag + powers_imag * real]),
        )
        real, imag = real * real - imag * imag, 2.0 * real * imag
    return powers_real, powers_imag, (real, imag)


def _carry(
    added: Float[Array, "batch chunks 2*order dim"],
    decay: tuple[Float[Array, "order dim"], Float[Array, "order dim"]],
    passes: Bool[Array, "batch chunks"],
) -> Float[Array, "batch chunks 2*order dim"]:
    """Return the state before each chunk.

    Args:
        added: what each chunk adds to it.
        decay: of the state over a chunk.
        passes: one document fills the chunk and was there before it.
    """
    real, imag = decay

    def step(state: Array, item: tuple[Array, Array]) -> tuple[Array, Array]:
        new, kept = item
        a, b = jnp.split(state, 2, axis=1)
        moved = jnp.concatenate([real * a - imag * b, real * b + imag * a], axis=1)
        return jnp.where(kept[:, None, None], moved, 0.0) + new, state

    start = jnp.zeros_like(added[:, 0])
    _, states = jax.lax.scan(step, start, (added.swapaxes(0, 1), passes.T))
    return states.swapaxes(0, 1)


def _by_row(function, *arrays: Array) -> Array:
    """Apply to each row of the arrays, in the branch of a condition that always holds.

    What a branch reads is in memory; else each of the slices that `function` adds up would compute
    anew what the arrays are made of. The condition is on data, so that a compiler can't know.
    """
    rows = jax.vmap(function)
    made = jax.eval_shape(rows, *arrays)
    return jax.lax.cond(
        arrays[-1].reshape(-1)[0] >= -1,
        rows,
        lambda *_: jnp.zeros(made.shape, made.dtype),
        *arrays,
    )


@jax.custom_vjp
def _within(
    x: Float[Array, "batch time dim"],
    kernel: Float[Array, "chunk dim"],
    reach: Int[Array, "batch time"],
) -> Float[Array, "batch time dim"]:
    """Return each token's sum over itself and the `reach` tokens before it, weighted by kernel."""
    chunk, time = kernel.shape[0], x.shape[1]

    def row(x: Array, reach: Array) -> Array:
        padded = jnp.pad(x, ((chunk - 1, 0), (0, 0)))
        total = kernel[0] * x
        for lag in range(1, chunk):
            seen = jax.lax.slice_in_dim(padded, chunk - 1 - lag, chunk - 1 - lag + time)
            total += jnp.where(reach[:, None] >= lag, kernel[lag] * seen, 0.0)
        return total

    return _by_row(row, x, reach)


def _within_backward(saved: tuple[Array, ...], grad: Array) -> tuple[Array, Array, None]:
    x, kernel, reach = saved
    chunk, time = kernel.shape[0], x.shape[1]
    after = ((0, 0), (0, chunk - 1), (0, 0))
    before = ((0, 0), (chunk - 1, 0), (0, 0))

    def row(grad: Array, reach: Array) -> Array:
        total = kernel[0] * jax.lax.slice_in_dim(grad, 0, time)
        for lag in range(1, chunk):
            seen = jax.lax.slice_in_dim(grad, lag, lag + time)
            sees = jax.lax.slice_in_dim(reach, lag, lag + time)[:, None] >= lag
            total += jnp.where(sees, kernel[lag] * seen, 0.0)
        return total

    to_x = _by_row(row, jnp.pad(grad, after), jnp.pad(reach, after[:2], constant_values=-1))
    padded = jnp.pad(x, before)

    def at_lag(_: None, lag: Array) -> tuple[None, Array]:
        seen = jax.lax.dynamic_slice_in_dim(padded, chunk - 1 - lag, time, axis=1)
        product = jnp.where(reach[..., None] >= lag, seen * grad, 0.0)
        return None, product.sum(axis=(0, 1))

    _, to_kernel = jax.lax.scan(at_lag, None, jnp.arange(chunk))
    return to_x, to_kernel, None


_within.defvjp(lambda *given: (_within(*given), given), _within_backward)


def _sum_tokens(x: Array, weights: Array, counts: Array) -> Float[Array, "batch chunks states dim"]:
    """Sum the tokens of each chunk that count, with weights [chunk, states, dim]."""
    chunk = weights.shape[0]

    def row(x: Array, counts: Array) -> Array:
        tokens = x.reshape(-1, chunk, x.shape[-1])
        counted = counts.reshape(-1, chunk)
        total = jnp.zeros((len(tokens), *weights.shape[1:]))
        for i in range(chunk):
            token = weights[i] * tokens[:, i, None]
            total += jnp.where(counted[:, i, None, None] > 0, token, 0.0)
        return total

    return _by_row(row, x, counts.astype(jnp.int32))


def _sum_states(states: Array, weights: Array, counts: Array) -> Float[Array, "batch time dim"]:
    """Sum the states of each chunk for those of its tokens that count."""

    def row(states: Array, counts: Array) -> Array:
        total = jnp.zeros((len(states), weights.shape[0], states.shape[-1]))
        for n in range(weights.shape[1]):
            total += weights[:, n] * states[:, n, None]
        total = total.reshape(-1, states.shape[-1])
        return jnp.where(counts[:, None] > 0, total, 0.0)

    return _by_row(row, states, counts.astype(jnp.int32))


def _to_weights(x: Array, states: Array, counts: Array) -> Float[Array, "chunk states dim"]:
    """Sum the products of the tokens that count with their chunk's states, over all chunks."""
    batch, chunks, _, dim = states.shape
    tokens = jnp.where(counts[..., None], x, 0.0).reshape(batch * chunks, -1, dim)
    states = states.reshape(batch * chunks, -1, dim)

    def add(total: Array, item: tuple[Array, Array]) -> tuple[Array, None]:
        token, state = item
        return total + token[:, None] * state, None

    start = jnp.zeros((tokens.shape[1], states.shape[1], dim))
    return jax.lax.scan(add, start, (tokens, states))[0]


@jax.custom_vjp
def _into_states(
    x: Float[Array, "batch time dim"],
    weights: Float[Array, "chunk states dim"],
    last: Bool[Array, "batch time"],
) -> Float[Array, "batch chunks states dim"]:
    """Return what each chunk's last document adds to the state."""
    return _sum_tokens(x, weights, last)


def _into_states_backward(saved: tuple[Array, ...], grad: Array) -> tuple[Array, Array, None]:
    x, weights, last = saved
    return _sum_states(grad, weights, last), _to_weights(x, grad, last), None


_into_states.defvjp(lambda *given: (_into_states(*given), given), _into_states_backward)


@jax.custom_vjp
def _out_of_states(
    states: Float[Array, "batch chunks states dim"],
    weights: Float[Array, "chunk states dim"],
    first: Bool[Array, "batch time"],
) -> Float[Array, "batch time dim"]:
    """Return what the state before each chunk gives to the tokens of its document."""
    return _sum_states(states, weights, first)


def _out_of_states_backward(saved: tuple[Array, ...], grad: Array) -> tuple[Array, Array, None]:
    states, weights, first = saved
    return _sum_tokens(grad, weights, first), _to_weights(grad, states, first), None


_out_of_states.defvjp(lambda *given: (_out_of_states(*given), given), _out_of_states_backward)
