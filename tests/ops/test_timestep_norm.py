"""The running normalization against its definition in float64."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from megalodon_jax.layers.timestep_norm import TimestepNorm

from chomp.ops import accelerator, timestep_norm

EPS = 1e-5


@jax.jit
def on_accelerator(x, scale, bias, *, runs=None, positions=None):
    return accelerator.timestep_norm(x, scale, bias, groups=2, eps=EPS, positions=positions)


@jax.jit
def on_cpu(x, scale, bias, *, runs=None, positions=None):
    return timestep_norm(x, scale, bias, groups=2, eps=EPS, runs=runs, positions=positions)


@pytest.fixture(params=[on_cpu, on_accelerator], ids=["cpu", "accelerator"])
def norm(request: pytest.FixtureRequest):
    return request.param


def reference(x, scale, bias, groups, starts):
    """Normalize each token by all values of its group since its document's start."""
    batch, time, dim = x.shape
    grouped = x.astype(np.float64).reshape(batch, time, groups, dim // groups)
    y = np.zeros_like(grouped)
    for b in range(batch):
        for t in range(time):
            past = grouped[b, starts[b, t] : t + 1]
            mean, var = past.mean((0, 2)), past.var((0, 2))
            y[b, t] = (grouped[b, t] - mean[:, None]) / np.sqrt(var[:, None] + EPS)
    return y.reshape(x.shape) * scale + bias


def rows(seed: int, time: int, documents: int):
    rng = np.random.default_rng(seed)
    cuts = [np.sort(rng.integers(1, max(time, 2), documents - 1)) for _ in range(2)]
    runs = np.stack([np.searchsorted(c, np.arange(time), side="right") for c in cuts])
    starts = np.stack([np.searchsorted(r, r, side="left") for r in runs])
    return rng, runs.astype(np.int32), starts, (np.arange(time) - starts).astype(np.int32)


@pytest.mark.parametrize("offset", [0.0, 50.0])
@pytest.mark.parametrize(("time", "documents"), [(1, 1), (63, 1), (64, 3), (150, 40), (300, 2)])
def test_output_over_documents(norm, time, documents, offset):
    rng, runs, starts, positions = rows(time, time, documents)
    x = (rng.normal(size=(2, time, 8)) + offset).astype(np.float32)
    scale, bias = rng.normal(size=8).astype(np.float32), rng.normal(size=8).astype(np.float32)
    ours = norm(jnp.asarray(x), scale, bias, runs=runs, positions=positions)
    expected = reference(x, scale, bias, 2, starts)
    np.testing.assert_allclose(ours, expected, rtol=1e-3 if offset else 1e-4, atol=2e-4)


def test_output_over_a_stream_is_that_of_one_document(norm):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 100, 8)).astype(np.float32)
    scale, bias = np.ones(8, np.float32), np.zeros(8, np.float32)
    ours = norm(jnp.asarray(x), scale, bias)
    expected = reference(x, scale, bias, 2, np.zeros((2, 100), int))
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)


def test_error_with_a_large_offset_is_no_larger_than_the_library_s(norm):
    """Sums of raw squares would cancel here: 16,384 values around 1,000 with deviation 1."""
    rng = np.random.default_rng(1)
    x = (rng.normal(size=(1, 16_384, 8)) + 1000).astype(np.float32)
    layer = TimestepNorm(8, num_groups=2, eps=EPS)
    grouped = x.astype(np.float64).reshape(1, -1, 2, 4)
    count = np.arange(1, 16_385)[None, :, None]
    mean = grouped.mean(-1).cumsum(1) / count
    square = np.square(grouped - 1000).mean(-1).cumsum(1) / count - np.square(mean - 1000)
    expected = (grouped - mean[..., None]) / np.sqrt(square[..., None] + EPS)
    expected = expected.reshape(x.shape)
    theirs = np.abs(np.asarray(eqx.filter_jit(layer)(jnp.asarray(x))[0]) - expected).max()
    ones, zeros = np.ones(8, np.float32), np.zeros(8, np.float32)
    ours = np.abs(np.asarray(norm(x, ones, zeros)) - expected).max()
    assert ours <= 2 * theirs


@pytest.mark.parametrize("documents", [1, 6])
def test_gradients_are_the_library_s(norm, documents):
    rng, runs, _, positions = rows(7, 130, documents)
    x = jnp.asarray(rng.normal(size=(2, 130, 8)), jnp.float32)
    weights = jnp.asarray(rng.normal(size=x.shape), jnp.float32)
    layer = TimestepNorm(8, num_groups=2, eps=EPS)

    def ours(x, weight, bias):
        y = norm(x, weight + 1, bias, runs=jnp.asarray(runs), positions=positions)
        return (y * weights).sum()

    def theirs(x, layer):
        return (layer(x, segment_ids=jnp.asarray(runs) + 1)[0] * weights).sum()

    to_x, to_weight, to_bias = jax.jit(jax.grad(ours, (0, 1, 2)))(x, layer.weight, layer.bias)
    expected_x, expected = jax.jit(jax.grad(theirs, (0, 1)))(x, layer)
    # A document's first token has almost no variance: its gradient is huge, and as inexact.
    np.testing.assert_allclose(to_x, expected_x, rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(to_weight, expected.weight, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(to_bias, expected.bias, rtol=1e-4, atol=1e-4)


def test_another_document_changes_no_bit(norm):
    rng = np.random.default_rng(2)
    runs = np.repeat([0, 1, 2], [50, 40, 60]).astype(np.int32)[None]
    positions = np.concatenate([np.arange(n) for n in (50, 40, 60)]).astype(np.int32)[None]
    x = rng.normal(size=(1, 150, 8)).astype(np.float32)
    other = x.copy()
    other[:, 50:90] = 1e15
    ones, zeros = np.ones(8, np.float32), np.zeros(8, np.float32)
    measure = jax.jit(lambda x: norm(x, ones, zeros, runs=runs, positions=positions))
    one, two = np.asarray(measure(x)), np.asarray(measure(other))
    assert (one[:, :50] == two[:, :50]).all() and (one[:, 90:] == two[:, 90:]).all()


def test_keeps_bfloat16(norm):
    x = jnp.ones((1, 5, 8), jnp.bfloat16)
    y = norm(x, jnp.ones(8), jnp.zeros(8))
    assert y.dtype == jnp.bfloat16
