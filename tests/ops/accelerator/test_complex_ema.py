"""The average without a loop against the recurrence itself in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ema_reference import DIM, dense, gradients_of, random_runs, reference, some_coefficients
from hypothesis import given, settings
from hypothesis import strategies as st

from chomp.ops.accelerator import complex_ema

average = jax.jit(complex_ema, static_argnums=4)
SKIP = jnp.asarray([0.5, -2.0, 0.0])


def positions(runs: np.ndarray | None) -> jax.Array | None:
    if runs is None:
        return None
    starts = np.stack([np.searchsorted(row, row, side="left") for row in runs])
    return jnp.asarray(np.arange(runs.shape[1]) - starts, jnp.int32)


def expected(x: np.ndarray, c, runs: np.ndarray | None) -> np.ndarray:
    skip = np.asarray(SKIP, np.float64) * x
    return reference(x.swapaxes(1, 2), c, runs).swapaxes(1, 2) + skip


# Each shape is compiled once, so they are few.
@settings(deadline=None, max_examples=15)
@given(
    seed=st.integers(0, 2**31),
    shape=st.sampled_from([(1, 8), (31, 32), (90, 8), (90, 1)]),
    documents=st.integers(1, 60),
)
def test_output_is_that_of_the_recurrence(seed, shape, documents):
    time, chunk = shape
    rng = np.random.default_rng(seed)
    c = some_coefficients(rng)
    x = rng.normal(size=(2, time, DIM)).astype(np.float32)
    for runs in (None, random_runs(rng, 2, time, documents)):
        ours = average(x, c, SKIP, positions(runs), chunk)
        np.testing.assert_allclose(ours, expected(x, c, runs), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("documents", [None, 1, 3, 40, 2000])
def test_states_reach_over_groups_of_groups_of_chunks(documents):
    rng = np.random.default_rng(0)
    c, time = some_coefficients(rng), 2100
    c = c._replace(magnitude=jnp.full_like(c.magnitude, 0.9995))
    x = rng.normal(size=(2, time, DIM)).astype(np.float32)
    runs = None if documents is None else random_runs(rng, 2, time, documents)
    ours = average(x, c, SKIP, positions(runs), 4)
    exact = expected(x, c, runs)
    np.testing.assert_allclose(ours, exact, rtol=1e-4, atol=1e-4 * np.abs(exact).max())


average_and_gradients = {
    chunk: gradients_of(lambda x, c, skip, at, chunk=chunk: complex_ema(x, c, skip, at, chunk))
    for chunk in (2, 8, 32)
}
exact_and_gradients = gradients_of(
    lambda x, c, skip, runs: dense(x.swapaxes(1, 2), c, runs).swapaxes(1, 2) + skip * x
)


@pytest.mark.parametrize(
    ("documents", "chunk"), [(None, 8), (1, 8), (5, 8), (70, 8), (5, 32), (70, 2)]
)
def test_gradients_of_input_and_all_coefficients(documents, chunk):
    rng = np.random.default_rng(3)
    time = 75
    c = some_coefficients(rng)
    x = rng.normal(size=(2, time, DIM)).astype(np.float32)
    weights = rng.normal(size=x.shape)
    runs = None if documents is None else random_runs(rng, 2, time, documents)
    _, *ours = average_and_gradients[chunk](weights, (x, c, SKIP), positions(runs))
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: np.asarray(a, np.float64), (x, c, SKIP))
        _, *exact = exact_and_gradients(weights, wide, runs)
    for a, b in zip(ours, exact, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(b).max())


def test_nothing_passes_between_documents_not_even_what_is_not_a_number():
    rng = np.random.default_rng(4)
    c = some_coefficients(rng)
    runs = np.repeat([0, 1, 2], [21, 30, 49])[None]
    x = rng.normal(size=(1, 100, DIM)).astype(np.float32)
    other = x.copy()
    other[:, 21:51] = np.nan

    def both(x):
        y, pull = jax.vjp(lambda x: complex_ema(x, c, SKIP, positions(runs), 16), x)
        return y, pull(x)[0]

    for one, two in zip(jax.jit(both)(x), jax.jit(both)(other), strict=True):
        one, two = np.asarray(one), np.asarray(two)
        assert (one[:, :21] == two[:, :21]).all() and (one[:, 51:] == two[:, 51:]).all()
        assert np.isnan(two[:, 21:51]).any()


def test_bfloat16_in_and_out_with_sums_in_float32():
    rng = np.random.default_rng(5)
    c = some_coefficients(rng)
    x = jnp.asarray(rng.normal(size=(1, 200, DIM)), jnp.bfloat16)
    ours = average(x, c, SKIP, None, 32)
    assert ours.dtype == jnp.bfloat16
    exact = expected(np.asarray(x, np.float32), c, None)
    np.testing.assert_allclose(np.asarray(ours, np.float32), exact, rtol=2**-8, atol=1e-3)


def test_the_program_has_no_loop():
    c = some_coefficients(np.random.default_rng(6))
    x = jnp.zeros((2, 4096, DIM))

    def both(x, c, at):
        return jax.vjp(lambda x, c: complex_ema(x, c, SKIP, at), x, c)[1](x)

    text = jax.jit(both).lower(x, c, positions(np.zeros((2, 4096), int))).as_text()
    assert "stablehlo.while" not in text
