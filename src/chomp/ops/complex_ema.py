"""Complex exponential moving average in chunks, over one stream or isolated documents.

Per channel d and order n, with complex q and |q| < 1 (Megalodon, arXiv:2404.08801, eq. 3):

    h_t = q h_{t-1} + p x_t        y_t = Re sum_n gamma h_t

As a convolution its kernel is k[tau] = Re sum_n gamma p q^tau. Time is cut into chunks: inside a
chunk the average is a product with the triangular Toeplitz matrix of k, and a state of 2N real
numbers per channel carries the past from chunk to chunk. All of it is real matrix products plus a
scan over chunks; only powers of q up to the chunk's length are needed, and no FFT. The structure
is that of chunked state space models (Dao and Gu, arXiv:2405.21060).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

CHUNK = 32


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
    x: Float[Array, "batch dim time"],
    coefficients: Coefficients,
    runs: Int[Array, "batch time"] | None = None,
    chunk: int = CHUNK,
) -> Float[Array, "batch dim time"]:
    """Return the moving average of `x` along time, in float32.

    Args:
        x: input; computed in float32 whatever its dtype.
        coefficients: of the average.
        runs: numbers of the documents, never falling along time; the average restarts at each
            new number. None: one stream.
        chunk: tokens per chunk, a power of two.
    """
    batch, dim, time = x.shape
    count = -(-time // chunk)
    pad = count * chunk - time
    # Channels first, so that every product is batched over its leading axis.
    chunks = jnp.pad(x.astype(jnp.float32), ((0, 0), (0, 0), (0, pad)))
    chunks = chunks.swapaxes(0, 1).reshape(dim, batch * count, chunk)
    kernel, inward, outward, decay = _matrices(coefficients, chunk)
    if runs is None:
        within = _product(chunks, kernel)
        states = _carry(_product(chunks, inward), decay, batch, None)
        result = within + _product(states, outward)
    else:
        layout = _layout(jnp.pad(runs, ((0, 0), (0, pad)), mode="edge"), chunk)
        within = _within_runs(chunks, kernel, layout.local)
        entering = jnp.where(layout.last, chunks, 0.0)
        states = _carry(_product(entering, inward), decay, batch, layout.passes)
        result = within + jnp.where(layout.first, _product(states, outward), 0.0)
    return result.reshape(dim, batch, count * chunk).swapaxes(0, 1)[..., :time]


class _Layout(NamedTuple):
    """Where documents lie in the chunks of all rows."""

    local: Int[Array, "chunks chunk"]
    """Number of a token's run within its chunk, from 0."""
    first: Bool[Array, "chunks chunk"]
    """The token's run was alive before the chunk."""
    last: Bool[Array, "chunks chunk"]
    """The token's run is alive at the chunk's end."""
    passes: Bool[Array, " chunks"]
    """One run fills the chunk and was alive before it: the state passes through."""


def _layout(runs: Int[Array, "batch time"], chunk: int) -> _Layout:
    batch, time = runs.shape
    cut = runs.reshape(batch, time // chunk, chunk)
    ends = cut[:, :, -1:]
    before = jnp.concatenate([jnp.full_like(ends[:, :1], -1), ends[:, :-1]], axis=1)
    starts = jnp.diff(cut, axis=-1, prepend=cut[..., :1]) != 0
    first = cut == before
    return _Layout(
        local=jnp.cumsum(starts, axis=-1).reshape(-1, chunk),
        first=first.reshape(-1, chunk),
        last=(cut == ends).reshape(-1, chunk),
        passes=(ends == before).reshape(-1),
    )


def _product(
    a: Float[Array, "dim rows inner"], b: Float[Array, "dim inner columns"]
) -> Float[Array, "dim rows columns"]:
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def _matrices(
    coefficients: Coefficients, chunk: int
) -> tuple[
    Float[Array, "dim chunk chunk"],
    Float[Array, "dim chunk 2*order"],
    Float[Array, "dim 2*order chunk"],
    tuple[Float[Array, "dim order"], Float[Array, "dim order"]],
]:
    """Return the matrices within a chunk, into the state and out of it, and the state's decay.

    The state is h without the factor p, which is taken on the way out: real parts first.
    """
    p, magnitude, phase, gamma_real, gamma_imag = coefficients
    q_real, q_imag = magnitude * jnp.cos(phase), magnitude * jnp.sin(phase)
    real, imag, decay = _powers(q_real, q_imag, chunk)
    a, b = (gamma_real * p)[..., None], (gamma_imag * p)[..., None]
    kernel = (a * real - b * imag).sum(axis=1)
    q_real, q_imag = q_real[..., None], q_imag[..., None]
    next_real, next_imag = real * q_real - imag * q_imag, real * q_imag + imag * q_real
    outward = jnp.concatenate([a * next_real - b * next_imag, -a * next_imag - b * next_real], 1)
    inward = jnp.concatenate([real, imag], axis=1)[..., ::-1].swapaxes(1, 2)
    return _toeplitz(kernel), inward, outward, decay


def _powers(
    real: Float[Array, "dim order"], imag: Float[Array, "dim order"], count: int
) -> tuple[Array, Array, tuple[Array, Array]]:
    """Return q^0 .. q^(count-1) along a new last axis as real and imaginary parts, and q^count.

    By doubling: its error grows like that of exp(count log q), and there is nothing to go wrong
    at q = 0.
    """
    powers_real, powers_imag = jnp.ones((*real.shape, 1)), jnp.zeros((*real.shape, 1))
    while powers_real.shape[-1] < count:
        r, i = real[..., None], imag[..., None]
        powers_real, powers_imag = (
            jnp.concatenate([powers_real, powers_real * r - powers_imag * i], axis=-1),
            jnp.concatenate([powers_imag, powers_real * i + powers_imag * r], axis=-1),
        )
        real, imag = real * real - imag * imag, 2.0 * real * imag
    return powers_real, powers_imag, (real, imag)


def _toeplitz(kernel: Float[Array, "dim chunk"]) -> Float[Array, "dim chunk chunk"]:
    """Return the matrix with kernel[i - j] at [j, i] for i >= j, else 0.

    By reshaping a tiled row of odd width, so that the derivative is sums, not a scatter.
    """
    dim, chunk = kernel.shape
    period = jnp.concatenate([kernel, jnp.zeros_like(kernel)], axis=1)
    tiled = jnp.broadcast_to(period[:, None, :], (dim, chunk, 2 * chunk)).reshape(dim, -1)
    skewed = tiled[:, : chunk * (2 * chunk - 1)].reshape(dim, chunk, 2 * chunk - 1)
    return skewed[..., :chunk]


def _carry(
    added: Float[Array, "dim chunks 2*order"],
    decay: tuple[Float[Array, "dim order"], Float[Array, "dim order"]],
    batch: int,
    passes: Bool[Array, " chunks"] | None,
) -> Float[Array, "dim chunks 2*order"]:
    """Return the state before each chunk, given what each chunk adds to it."""
    dim, chunks, width = added.shape
    count, order = chunks // batch, width // 2
    steps = added.reshape(dim, batch, count, width).transpose(2, 0, 1, 3)
    keep = jnp.ones((count, batch), bool) if passes is None else passes.reshape(batch, count).T
    decay_real, decay_imag = decay[0][:, None, :], decay[1][:, None, :]

    def step(state: Array, item: tuple[Array, Array]) -> tuple[Array, Array]:
        new, kept = item
        real, imag = state[..., :order], state[..., order:]
        moved = jnp.concatenate(
            [decay_real * real - decay_imag * imag, decay_real * imag + decay_imag * real], -1
        )
        return jnp.where(kept[None, :, None], moved, 0.0) + new, state

    _, states = jax.lax.scan(step, jnp.zeros((dim, batch, width)), (steps, keep))
    return states.transpose(1, 2, 0, 3).reshape(dim, chunks, width)


# Runs that begin inside a chunk are few. All chunks have their first run computed at once; the
# other (chunk, run) pairs follow in blocks of this size, in a loop as long as there are any.
PAIRS_AT_ONCE = 16


@jax.custom_vjp
def _within_runs(
    chunks: Float[Array, "dim chunks chunk"],
    kernel: Float[Array, "dim chunk chunk"],
    local: Int[Array, "chunks chunk"],
) -> Float[Array, "dim chunks chunk"]:
    """Multiply each run of each chunk by `kernel` on its own: masked in, multiplied, masked out."""
    pairs = _Pairs(local)
    head = local == 0
    total = jnp.where(head, _product(jnp.where(head, chunks, 0.0), kernel), 0.0)

    def add(block: Array, total: Array) -> Array:
        where, mask = pairs.block(block)
        part = _product(jnp.where(mask, chunks[:, where], 0.0), kernel)
        return total.at[:, where].add(jnp.where(mask, part, 0.0))

    return pairs.loop(add, total)


def _within_runs_forward(chunks: Array, kernel: Array, local: Array) -> tuple[Array, tuple]:
    return _within_runs(chunks, kernel, local), (chunks, kernel, local)


def _within_runs_backward(saved: tuple, grad: Array) -> tuple[Array, Array, None]:
    chunks, kernel, local = saved
    pairs = _Pairs(local)
    transposed = kernel.swapaxes(1, 2)

    def parts(inputs: Array, outputs: Array, mask: Array) -> tuple[Array, Array]:
        inputs, outputs = jnp.where(mask, inputs, 0.0), jnp.where(mask, outputs, 0.0)
        to_inputs = jnp.where(mask, _product(outputs, transposed), 0.0)
        return to_inputs, _product(inputs.swapaxes(1, 2), outputs)

    def add(block: Array, totals: tuple[Array, Array]) -> tuple[Array, Array]:
        where, mask = pairs.block(block)
        to_inputs, to_kernel = parts(chunks[:, where], grad[:, where], mask)
        return totals[0].at[:, where].add(to_inputs), totals[1] + to_kernel

    to_chunks, to_kernel = pairs.loop(add, parts(chunks, grad, local == 0))
    return to_chunks, to_kernel, None


_within_runs.defvjp(_within_runs_forward, _within_runs_backward)


class _Pairs:
    """The (chunk, run) pairs of the runs that begin inside a chunk, in blocks."""

    def __init__(self, local: Int[Array, "chunks chunk"]):
        self._local = local
        per_chunk = local[:, -1]
        self._ends = jnp.cumsum(per_chunk)
        self._starts = self._ends - per_chunk

    def loop(self, body, start):
        """Apply `body` to every block's number and the result so far."""
        blocks = -(-self._ends[-1] // PAIRS_AT_ONCE)
        return jax.lax.fori_loop(0, blocks, body, start)

    def block(self, number: Int[Array, ""]) -> tuple[Array, Array]:
        """Return the chunks of the block's pairs and where in each the pair's run lies."""
        pair = number * PAIRS_AT_ONCE + jnp.arange(PAIRS_AT_ONCE)
        where = jnp.searchsorted(self._ends, pair, side="right")
        where = jnp.minimum(where, self._local.shape[0] - 1)
        run = pair - self._starts[where] + 1
        inside = (pair < self._ends[-1])[:, None] & (self._local[where] == run[:, None])
        return where, inside
