"""Whole models with fast operations against the library's own."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from megalodon_jax import MegalodonConfig

from chomp.models.megalodon import blocks, layers
from chomp.models.megalodon.model import Megalodon
from chomp.ops import attention_kernel, ema_kernel
from chomp.ops.kernels import token_loop
from chomp.types import IGNORE_LABEL, Batch

CONFIG = MegalodonConfig(
    vocab_size=64,
    model_dim=32,
    num_layers=1,
    num_heads=2,
    z_dim=16,
    value_dim=32,
    ffn_hidden_dim=48,
    cema_ndim=4,
    chunk_size=32,
    norm_num_groups=4,
    swiglu=True,
)


def rows(documents: int, *, time: int = 96, padding: int = 0, seed: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    ids = rng.integers(3, 64, (2, time)).astype(np.int32)
    cuts = [np.sort(rng.integers(1, time - padding, documents - 1)) for _ in range(2)]
    segments = np.stack([1 + np.searchsorted(c, np.arange(time), side="right") for c in cuts])
    segments[:, time - padding :] = 0
    labels = np.where(segments > 0, ids, IGNORE_LABEL)
    labels[:, 1:][segments[:, 1:] != segments[:, :-1]] = IGNORE_LABEL
    return Batch(ids, labels.astype(np.int32), segments.astype(np.int32), segments > 0)


@functools.cache
def arrays() -> list[jax.Array]:
    """Return the parameters' arrays, made by a program that is compiled once for all tests."""
    return jax.tree.leaves(jax.jit(Megalodon(CONFIG, True).init)(jax.random.PRNGKey(0)))


def parameters(config: MegalodonConfig = CONFIG) -> Any:
    """Return the parameters of a config with the sizes of `CONFIG`."""
    # The library's layers keep what else the config says.
    made = jax.eval_shape(Megalodon(config, True).init, jax.random.PRNGKey(0))
    return jax.tree.unflatten(jax.tree.structure(made), arrays())


@functools.cache
def compiled(isolate: bool, fast: bool, platform: str | None = None, kernels: str = "xla"):
    """Loss, targets and gradient norm; compiled once for all cases."""
    model = Megalodon(CONFIG, isolate, fast, platform, kernels)

    def measure(params, batch):
        (loss, targets), grads = jax.value_and_grad(model.loss, has_aux=True)(params, batch, None)
        return loss, targets, optax.tree.norm(grads)

    return jax.jit(measure), parameters()


@pytest.mark.parametrize("isolate", [False, True])
@pytest.mark.parametrize(("documents", "padding"), [(1, 0), (5, 0), (60, 0), (3, 40), (1, 96)])
def test_loss_and_gradient_norm_are_the_library_s(isolate, documents, padding):
    batch = rows(documents, padding=padding) if padding < 96 else empty()
    results = []
    for fast in (False, True):
        measure, params = compiled(isolate, fast)
        results.append([float(value) for value in measure(params, batch)])
    (loss, targets, norm), (fast_loss, fast_targets, fast_norm) = results
    assert fast_targets == targets == np.count_nonzero(batch.labels[:, 1:] != IGNORE_LABEL)
    np.testing.assert_allclose([fast_loss, fast_norm], [loss, norm], rtol=1e-5)


@pytest.mark.parametrize("isolate", [False, True])
def test_so_they_are_as_computed_on_accelerators(isolate):
    """In windows instead of loops; on the CPU here all the same."""
    batch = rows(5, padding=10)
    measure, params = compiled(isolate, False)
    expected = measure(params, batch)
    measure, _ = compiled(isolate, True, "gpu")
    for ours, theirs in zip(measure(params, batch), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


@pytest.mark.parametrize("isolate", [False, True])
def test_so_they_are_with_kernels(isolate, monkeypatch):
    """Interpreted, as this is a CPU."""
    monkeypatch.setattr(token_loop, "TURN", 2)
    kernel = functools.partial(ema_kernel, interpret=True)
    monkeypatch.setattr(layers, "ema_kernel", kernel)
    attention = functools.partial(attention_kernel, interpret=True)
    monkeypatch.setattr(blocks, "attention_kernel", attention)
    batch = rows(5, padding=10)
    measure, params = compiled(isolate, False)
    expected = measure(params, batch)
    measure, _ = compiled(isolate, True, "gpu", "pallas")
    for ours, theirs in zip(measure(params, batch), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def empty() -> Batch:
    zeros = np.zeros((2, 96), np.int32)
    return Batch(zeros, np.full_like(zeros, IGNORE_LABEL), zeros, zeros > 0)


def test_dropout_is_left_alone():
    """The same key drops the same values on either path."""
    config = MegalodonConfig(**{**vars(CONFIG), "hidden_dropout": 0.2, "dropout": 0.1})
    params, key = parameters(config), jax.random.PRNGKey(1)
    losses = [
        jax.jit(Megalodon(config, True, fast).loss)(params, rows(3), key)[0] for fast in (0, 1)
    ]
    measure, params = compiled(True, True)
    plain, _, _ = measure(params, rows(3))
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
    assert abs(float(plain) - float(losses[0])) > 1e-3


def test_checkpointed_layers_give_the_same_gradients():
    batch, key = rows(4), jax.random.PRNGKey(1)
    measure, params = compiled(True, True)
    _, _, expected = measure(params, batch)
    config = MegalodonConfig(**{**vars(CONFIG), "use_checkpoint": True})
    model = Megalodon(config, True)
    # With a key: without one nothing is checkpointed.
    grads = jax.jit(jax.grad(lambda p: model.loss(p, batch, key)[0]))(parameters(config))
    np.testing.assert_allclose(optax.tree.norm(grads), expected, rtol=1e-6)


def test_bfloat16_compute_is_close_to_float32():
    config = MegalodonConfig(**{**vars(CONFIG), "compute_dtype": jnp.bfloat16})
    measure, params = compiled(True, True)
    batch = rows(4)
    exact, _, _ = measure(params, batch)
    rounded = jax.jit(Megalodon(config, True).loss)(params, batch, None)[0]
    library = jax.jit(Megalodon(config, True, fast_ops=False).loss)(params, batch, None)[0]
    assert rounded.dtype == jnp.float32
    assert abs(rounded - exact) <= 2 * abs(library - exact) + 0.01 * exact


def row_of(documents: list[np.ndarray], scored: int) -> Batch:
    """Return two rows: all documents, of which one is scored, and nothing."""
    rows = Batch(*map(np.copy, empty()))
    at = 0
    for number, document in enumerate(documents):
        end = at + len(document)
        rows.input_ids[0, at:end], rows.segment_ids[0, at:end] = document, number + 1
        if number == scored:
            rows.labels[0, at + 1 : end] = document[1:]
        at = end
    return rows


def test_packed_documents_score_as_they_do_alone_only_when_isolated():
    # Two are longer than a chunk, and none is a multiple of it.
    documents = np.split(rows(1).input_ids[0], [40, 77])
    for isolate in (True, False):
        measure, params = compiled(isolate, True)
        differences = []
        for number, document in enumerate(documents):
            together, targets, _ = measure(params, row_of(documents, number))
            alone, same, _ = measure(params, row_of([document], 0))
            assert targets == same == len(document) - 1
            differences.append(abs(float(together / alone) - 1))
        assert (max(differences) < 1e-5) == isolate, differences


def test_another_document_changes_no_bit_of_the_loss():
    batch = rows(3, seed=3)
    measure, params = compiled(True, True)
    first = batch.segment_ids == 1
    labels = np.where(first, batch.labels, IGNORE_LABEL)
    changed = np.where(first, batch.input_ids, 63 - batch.input_ids % 60)
    one, _, _ = measure(params, batch._replace(labels=labels))
    assert float(one) > 0
    other = batch._replace(labels=labels, input_ids=changed.astype(np.int32))
    assert measure(params, other)[0] == one
