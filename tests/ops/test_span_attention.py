"""Attention over spans against its definition in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_reference import REACH, case, reference

from chomp.ops import span_attention
from chomp.ops.accelerator import window_attention


@jax.jit
def measured(q, k, v, start, above):
    out, back = jax.vjp(lambda q, k, v: span_attention(q, k, v, start), q, k, v)
    return out, *back(above)


@pytest.mark.parametrize(
    ("time", "documents", "padding"),
    [(1, 1, 0), (37, 5, 0), (128, 3, 0), (300, 1, 0), (300, 4, 20), (300, 200, 7), (300, 1, 300)],
)
def test_outputs_and_gradients(time, documents, padding):
    *arguments, _ = case(time, documents, padding)
    for ours, expected in zip(measured(*arguments), reference(*arguments), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("time", "documents", "padding"), [(37, 5, 0), (300, 4, 20), (450, 1, 0)])
def test_windows_give_the_same(time, documents, padding):
    q, k, v, start, above, _ = case(time, documents, padding)

    def windows(q, k, v):
        return window_attention(q, k, v, start, REACH, chunks_before=int(documents > 1))

    out, back = jax.vjp(windows, q, k, v)
    for ours, spans in zip((out, *back(above)), measured(q, k, v, start, above), strict=True):
        np.testing.assert_allclose(ours, spans, rtol=1e-4, atol=1e-5)


def test_large_scores_do_not_overflow():
    q, k, v, start, above, _ = case(200, 3, 0)
    arguments = (q * 40, k * 40, v, start, above)
    for ours, expected in zip(measured(*arguments), reference(*arguments), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=2e-2)


def test_another_document_changes_no_bit():
    q, k, v, start, above, runs = case(300, 4, 0, seed=1)
    other = (runs != 1)[:, None, :, None]
    changed = [np.where(other, -1e18, a).astype(np.float32) for a in (q, k, v)]
    # No gradient comes from the other documents, whose scores are infinite now.
    above = np.where(other, 0, above)
    for one, two in zip(
        measured(q, k, v, start, above), measured(*changed, start, above), strict=True
    ):
        np.testing.assert_array_equal(np.where(other, 0, one), np.where(other, 0, two))


def test_under_vmap_scan_and_checkpoint():
    q, k, v, start, *_ = case(140, 3, 0)

    def loss(q, k, v, start):
        return span_attention(q[None], k[None], v[None], start[None]).sum()

    plain = jax.grad(lambda q: span_attention(q, k, v, start).sum())(q)
    grad = jax.grad(jax.checkpoint(loss))
    mapped = jax.jit(jax.vmap(grad))(q, k, v, start)
    _, scanned = jax.lax.scan(lambda _, row: (None, grad(*row)), None, (q, k, v, start))
    np.testing.assert_allclose(mapped, plain, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(scanned, plain, rtol=1e-4, atol=1e-6)


def test_bfloat16_operands_are_close():
    *arguments, _ = case(200, 3, 0)
    q, k, v, start, above = arguments
    narrow = [jnp.asarray(a, jnp.bfloat16) for a in (q, k, v)]
    results = measured(*narrow, start, jnp.asarray(above, jnp.bfloat16))
    for ours, expected in zip(results, reference(*arguments), strict=True):
        assert ours.dtype == jnp.bfloat16
        error = np.abs(np.asarray(ours, np.float64) - expected)
        assert error.max() <= 0.05 * np.abs(expected).max()
