"""The loss without logits against the loss with them, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from chomp.ops import linear_cross_entropy
from chomp.ops.linear_cross_entropy import _summed, _tokens_at_once


def case(tokens: int = 37, dim: int = 8, vocab: int = 50):
    rng = np.random.default_rng(tokens)
    hidden = rng.normal(size=(tokens, dim)).astype(np.float32)
    weight = rng.normal(size=(vocab, dim)).astype(np.float32)
    labels = rng.integers(0, vocab, tokens).astype(np.int32)
    return hidden, weight, labels, rng.random(tokens) < 0.7


def plain(hidden, weight, labels, counts):
    losses = optax.softmax_cross_entropy_with_integer_labels(hidden @ weight.T, labels)
    return jnp.where(counts, losses, 0.0).sum()


@pytest.mark.parametrize("chunk", [1, 8, 37, 64])
def test_loss_and_gradients_whatever_the_chunk(chunk):
    hidden, weight, labels, counts = case()
    highest = jax.lax.Precision.HIGHEST
    loss = _summed(hidden, weight, labels, counts, chunk, highest)
    value, grads = jax.value_and_grad(_summed, (0, 1))(
        hidden, weight, labels, counts, chunk, highest
    )
    with jax.enable_x64(True):
        wide = hidden.astype(np.float64), weight.astype(np.float64)
        expected, expected_grads = jax.value_and_grad(plain, (0, 1))(*wide, labels, counts)
    np.testing.assert_allclose([loss, value], [expected, expected], rtol=1e-6)
    for ours, theirs in zip(grads, expected_grads, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_gradient_is_scaled_by_what_comes_from_above():
    hidden, weight, labels, counts = case()
    once = jax.grad(lambda h: linear_cross_entropy(h, weight, labels, counts))(hidden)
    scaled = jax.grad(lambda h: -3 * linear_cross_entropy(h, weight, labels, counts))(hidden)
    np.testing.assert_allclose(scaled, -3 * once, rtol=1e-6)


def test_no_target_no_loss_no_gradient():
    hidden, weight, labels, counts = case()
    none = np.zeros_like(counts)
    value, grads = jax.value_and_grad(linear_cross_entropy, (0, 1))(hidden, weight, labels, none)
    assert value == 0 and all((np.asarray(g) == 0).all() for g in grads)


def test_logits_of_a_large_vocabulary_are_never_held():
    hidden, weight, labels, counts = case(tokens=4096, dim=16, vocab=16_384)
    grad = jax.jit(jax.grad(linear_cross_entropy, (0, 1)))
    program = grad.lower(hidden, weight, labels, counts).compile()
    all_logits = 4096 * 16_384 * 4
    assert program.memory_analysis().temp_size_in_bytes < all_logits / 3


def test_bfloat16_activations_with_float32_head():
    hidden, weight, labels, counts = case()
    loss, (to_hidden, to_weight) = jax.value_and_grad(linear_cross_entropy, (0, 1))(
        jnp.asarray(hidden, jnp.bfloat16), jnp.asarray(weight), labels, counts
    )
    assert loss.dtype == jnp.float32
    assert to_hidden.dtype == jnp.bfloat16 and to_weight.dtype == jnp.float32
    np.testing.assert_allclose(loss, plain(hidden, weight, labels, counts), rtol=2e-2)


@pytest.mark.parametrize(
    ("tokens", "vocab", "on_cpu", "on_accelerator"),
    [
        (2048, 2048, 2048, 2048),
        (3000, 5000, 838, 3000),
        (16_384, 32_128, 256, 4096),
        (40, 99, 40, 40),
    ],
)
def test_pieces(tokens, vocab, on_cpu, on_accelerator):
    """A CPU's never change, since with them the order of sums would, and so a resumed run."""
    assert _tokens_at_once(tokens, vocab, accelerator=False) == on_cpu
    assert _tokens_at_once(tokens, vocab, accelerator=True) == on_accelerator
