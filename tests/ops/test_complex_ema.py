"""The chunked average against the recurrence itself, token by token in float64."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ema_reference import (
    DIM,
    ORDER,
    dense,
    gradients_of,
    random_runs,
    reference,
    some_coefficients,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from megalodon_jax.layers.complex_ema import ComplexEMA

from chomp import ops
from chomp.models.megalodon.layers import coefficients


def complex_ema(x, c, runs, chunk):
    """Channels before time, as the recurrence has it; documents by numbers."""
    positions = None
    if runs is not None:
        starts = jax.vmap(lambda row: jnp.searchsorted(row, row, side="left"))(jnp.asarray(runs))
        positions = jnp.arange(runs.shape[1]) - starts
    x = jnp.asarray(x).swapaxes(1, 2)
    return ops.complex_ema(x, c, positions=positions, chunk=chunk).swapaxes(1, 2)


average = jax.jit(complex_ema, static_argnums=3)


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 2**31),
    time=st.sampled_from([1, 31, 90]),  # each shape is compiled once, so they are few
    chunk=st.sampled_from([1, 8, 32]),
    documents=st.integers(1, 60),
)
def test_output_is_that_of_the_recurrence(seed, time, chunk, documents):
    rng = np.random.default_rng(seed)
    c = some_coefficients(rng)
    x = rng.normal(size=(2, DIM, time)).astype(np.float32)
    for runs in (None, random_runs(rng, 2, time, documents).astype(np.int32)):
        ours = average(x, c, runs, chunk)
        np.testing.assert_allclose(ours, reference(x, c, runs), rtol=2e-5, atol=2e-5)


def test_every_token_its_own_document_keeps_nothing():
    """More runs than any block of pairs holds, in every chunk."""
    rng = np.random.default_rng(0)
    c, time = some_coefficients(rng), 200
    x = rng.normal(size=(1, DIM, time)).astype(np.float32)
    runs = np.arange(time, dtype=np.int32)[None]
    ours = average(x, c, runs, 32)
    weight = (np.asarray(c.gamma_real) * np.asarray(c.p)).sum(-1)
    np.testing.assert_allclose(ours, x * weight[:, None], rtol=1e-5, atol=1e-5)


def test_decay_of_exactly_zero():
    rng = np.random.default_rng(2)
    c = some_coefficients(rng)._replace(magnitude=jnp.zeros((DIM, ORDER)))
    x = rng.normal(size=(1, DIM, 40)).astype(np.float32)
    np.testing.assert_allclose(average(x, c, None, 32), reference(x, c, None), rtol=1e-5, atol=1e-5)
    grads = jax.grad(lambda c: average(x, c, None, 32).sum())(c)
    assert all(np.isfinite(g).all() for g in grads)


average_and_gradients = {
    chunk: gradients_of(lambda x, c, runs, chunk=chunk: complex_ema(x, c, runs, chunk))
    for chunk in (8, 32)
}
exact_and_gradients = gradients_of(dense)


@pytest.mark.parametrize("documents", [None, 1, 5, 70])
@pytest.mark.parametrize("chunk", [8, 32])
def test_gradients_of_input_and_all_coefficients(documents, chunk):
    rng = np.random.default_rng(3)
    time = 75
    c = some_coefficients(rng)
    x = rng.normal(size=(2, DIM, time)).astype(np.float32)
    weights = rng.normal(size=x.shape)
    runs = None if documents is None else random_runs(rng, 2, time, documents).astype(np.int32)
    _, *ours = average_and_gradients[chunk](weights, (x, c), runs)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: np.asarray(a, np.float64), (x, c))
        exact, *expected = exact_and_gradients(weights, wide, runs)
    np.testing.assert_allclose(exact, reference(x, c, runs), atol=1e-9)
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(b).max())


@pytest.mark.parametrize(("shift", "offset", "time"), [(0.0, 0.0, 700), (-5.0, 3.0, 16_384)])
def test_error_is_no_larger_than_the_library_s(shift, offset, time):
    """Also for |q| within 1e-4 of 1 over a long row with a large mean."""
    layer = eqx.filter_jit(ComplexEMA)(8, 16, key=jax.random.PRNGKey(0))
    layer = eqx.tree_at(
        lambda e: (e.alpha, e.delta), layer, (layer.alpha + shift, layer.delta + shift)
    )
    x = jax.random.normal(jax.random.PRNGKey(1), (1, 8, time)) + offset
    c = coefficients(layer)
    expected = reference(np.asarray(x), c, None)
    skip = np.asarray(layer.omega, np.float64)[:, None] * np.asarray(x, np.float64)
    theirs = np.abs(np.asarray(eqx.filter_jit(layer)(x)[0]) - expected - skip).max()
    ours = np.abs(np.asarray(average(x, c, None, 32)) - expected).max()
    assert ours <= 2 * theirs


def test_another_document_changes_no_bit():
    rng = np.random.default_rng(4)
    c = some_coefficients(rng)
    runs = np.repeat([0, 1, 2], [21, 30, 49]).astype(np.int32)[None]
    x = rng.normal(size=(1, DIM, 100)).astype(np.float32)
    other = x.copy()
    other[:, :, 21:51] = rng.normal(size=(1, DIM, 30)) * 1e30
    one, two = (np.asarray(average(values, c, runs, 16)) for values in (x, other))
    assert (one[..., :21] == two[..., :21]).all() and (one[..., 51:] == two[..., 51:]).all()
    assert not (one[..., 21:51] == two[..., 21:51]).all()


def test_under_vmap_scan_and_checkpoint():
    rng = np.random.default_rng(5)
    c = some_coefficients(rng)
    x = jnp.asarray(rng.normal(size=(3, 2, DIM, 40)), jnp.float32)
    runs = jnp.asarray(np.stack([random_runs(rng, 2, 40, 4) for _ in range(3)]), jnp.int32)

    def loss(x, runs):
        return jnp.square(complex_ema(x, c, runs, 16)).sum()

    step = jax.jit(jax.grad(loss))
    plain = [step(a, b) for a, b in zip(x, runs, strict=True)]
    mapped = jax.jit(jax.vmap(jax.grad(loss)))(x, runs)
    scanned = jax.lax.scan(lambda _, i: (None, jax.grad(jax.checkpoint(loss))(*i)), None, (x, runs))
    np.testing.assert_allclose(mapped, np.stack(plain), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(scanned[1], np.stack(plain), rtol=1e-5, atol=1e-5)
