"""The complex exponential moving average in float64, and what to try it on."""

import jax
import jax.numpy as jnp
import numpy as np

from chomp.ops import Coefficients

DIM, ORDER = 3, 4


def reference(x: np.ndarray, c: Coefficients, runs: np.ndarray | None) -> np.ndarray:
    p, magnitude, phase, real, imag = (np.asarray(a, np.float64) for a in c)
    q, gamma = magnitude * np.exp(1j * phase), real + 1j * imag
    batch, dim, time = x.shape
    y = np.zeros(x.shape)
    state = np.zeros((batch, dim, q.shape[1]), complex)
    for t in range(time):
        if runs is not None and t > 0:
            state[runs[:, t] != runs[:, t - 1]] = 0
        state = q * state + p * x[:, :, t, None].astype(np.float64)
        y[:, :, t] = (gamma * state).real.sum(-1)
    return y


def some_coefficients(rng: np.random.Generator, dim: int = DIM, order: int = ORDER) -> Coefficients:
    shape = (dim, order)
    values = (
        rng.uniform(0.2, 0.8, shape),
        rng.uniform(0.2, 0.99, shape),
        rng.uniform(0, np.pi, shape),
        rng.normal(size=shape),
        rng.normal(size=shape),
    )
    return Coefficients(*(jnp.asarray(v, jnp.float32) for v in values))


def random_runs(rng: np.random.Generator, batch: int, time: int, documents: int) -> np.ndarray:
    cuts = [rng.integers(0, time, documents - 1) for _ in range(batch)]
    return np.stack([np.searchsorted(np.sort(c), np.arange(time), side="right") for c in cuts])


def gradients_of(compute):
    """Return a function that is compiled once for all inputs of equal shapes.

    It takes `towards`, a tuple of inputs and what else `compute` takes; and returns the result of
    `compute(*inputs, *others)`, then the gradients of its product with `towards` by the inputs.
    """

    def score(inputs, towards, *others):
        result = compute(*inputs, *others)
        return (result * towards).sum(), result

    program = jax.jit(jax.grad(score, has_aux=True))

    def measure(towards, inputs, *others):
        grads, result = program(inputs, towards, *others)
        return [result, *jax.tree.leaves(grads)]

    return measure


def with_gradients(compute, towards, *given):
    """Return the result of `compute(*given)`, then the gradients of its product with `towards`."""
    return gradients_of(compute)(towards, given)


def dense(x: jax.Array, c: Coefficients, runs: np.ndarray | None) -> jax.Array:
    """The same average in float64 as one masked matrix, for its derivatives."""
    time = x.shape[-1]
    lag = np.arange(time)[:, None] - np.arange(time)[None, :]
    q = c.magnitude * jnp.exp(1j * c.phase)
    gamma = (c.gamma_real + 1j * c.gamma_imag) * c.p
    kernel = (gamma[..., None] * q[..., None] ** np.arange(time)).real.sum(1)
    allowed = jnp.broadcast_to(lag >= 0, (x.shape[0], time, time))
    if runs is not None:
        allowed &= runs[:, :, None] == runs[:, None, :]
    return jnp.einsum("dij,bij,bdj->bdi", kernel[:, np.maximum(lag, 0)], allowed, x)
