from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from chomp.checkpoint.compatibility import flat
from chomp.config import OptimConfig
from chomp.config.optim import RATE_KEYS
from chomp.models import build_model
from chomp.optim import Optimizer, Rates, parameter_groups
from chomp.trainer.program import WithRates, build_program, lower_step
from chomp.trainer.step import init_state, make_train_step
from chomp.types import IGNORE_LABEL, Batch, TrainState

Step = tuple[Callable[..., Any], TrainState]


@pytest.fixture(scope="module")
def rows(texts: list[str]) -> Batch:
    """8 rows of real text with very uneven masks: from one target in a row to all of them."""
    data = "\n".join(texts).encode()
    ids = np.frombuffer(data[: 8 * 32], np.uint8).reshape(8, 32).astype(np.int32) + 3
    labels = ids.copy()
    for row, kept in enumerate((1, 32, 0, 7, 30, 2, 16, 1)):
        labels[row, 1 + kept :] = IGNORE_LABEL
    segments = np.ones_like(ids)
    segments[3, 20:] = 0
    ids[3, 20:] = 0
    return Batch(ids, labels, segments, segments > 0)


def shaped(rows: Batch, accum: int) -> Batch:
    return Batch(*(a.reshape(accum, len(a) // accum, *a.shape[1:]) for a in rows))


@pytest.fixture(scope="module")
def make(make_config: Callable[..., Any]) -> Callable[..., Step]:
    """Make a jitted step and its start state."""

    def build(backend: str = "dummy", *, deterministic: bool = True, **sections: Any) -> Step:
        config = make_config(backend, **sections)
        model = build_model(config.model, isolate_documents=False)
        params = jax.eval_shape(model.init, jax.random.PRNGKey(0))
        kinds = model.parameter_kinds(params)
        groups = parameter_groups(params, kinds, muon=False)
        optimizer = Optimizer(config.optim, groups, kinds)
        state = jax.jit(lambda: init_state(model, optimizer, 5))()
        constant = {"warmup_steps": 0, "min_lr_ratio": 1.0}
        rates = Rates.of(config.optim.model_copy(update=constant), steps=1)
        step = jax.jit(make_train_step(model, optimizer, deterministic=deterministic))
        return WithRates(step, rates), state

    return build


def difference(left: Any, right: Any) -> float:
    return float(optax.tree.norm(jax.tree.map(jnp.subtract, left, right)))


@pytest.fixture(scope="module")
def scanned(make: Callable[..., Step], rows: Batch) -> dict[int, Any]:
    """The Megalodon's step with these rows in 4 microbatches of 2, and in 1 of 8."""
    # A large epsilon keeps Adam's first update from being the gradients' signs alone, which
    # would blow up the rounding of the smallest ones.
    step, state = make("megalodon", optim={"adam": {"eps": 1e-3}})
    return {accum: (state, *step(state, shaped(rows, accum))) for accum in (4, 1)}


def test_a_target_weighs_the_same_in_any_microbatch(scanned: dict[int, Any]):
    (start, four, m4), (_, one, m1) = scanned[4], scanned[1]
    assert int(m4.targets) == int(m1.targets) == 1 + 31 + 0 + 7 + 30 + 2 + 16 + 1
    assert float(m4.loss) == pytest.approx(float(m1.loss), rel=1e-6)
    assert float(m4.grad_norm) == pytest.approx(float(m1.grad_norm), rel=1e-6)
    size = difference(one.params, start.params)
    assert size > 1e-3
    assert difference(four.params, one.params) < 2e-6 * size


def test_it_is_the_plain_mean_over_all_targets(
    scanned: dict[int, Any], rows: Batch, make_config: Callable[..., Any]
):
    """Without microbatches, scan, sums or our loss: the library's logits and a mean."""
    start, after, metrics = scanned[4]

    def mean_loss(params: Any) -> jax.Array:
        logits = params(jnp.asarray(rows.input_ids), deterministic=True)[0]
        logprobs = jax.nn.log_softmax(logits[:, :-1].astype(jnp.float32))
        labels = rows.labels[:, 1:]
        row, at = np.nonzero(labels != IGNORE_LABEL)
        return -logprobs[row, at, labels[row, at]].mean()

    loss, grads = jax.jit(jax.value_and_grad(mean_loss))(start.params)
    assert float(metrics.loss) == pytest.approx(float(loss), rel=1e-6)
    norm = optax.tree.norm(grads)
    assert float(metrics.grad_norm) == pytest.approx(float(norm), rel=1e-5)
    # Clipping to 1 and Adam's first update, by hand.
    clipped = jax.tree.map(lambda g: g / jnp.maximum(norm, 1.0), grads)
    moments = jax.tree.map(lambda g: -3e-3 * g / (jnp.abs(g) + 1e-3), clipped)
    matrices = jax.tree_util.tree_map_with_path(
        lambda path, p: "norm" not in jax.tree_util.keystr(path) and p.ndim == 2, start.params
    )
    model = build_model(make_config("megalodon").model, isolate_documents=False)
    kinds = model.parameter_kinds(start.params)
    groups = parameter_groups(start.params, kinds, muon=False)
    decay = jax.tree.map(
        lambda p, g, m: -3e-3 * 0.01 * p * (g == "adamw" and m), start.params, groups, matrices
    )
    expected = jax.tree.map(lambda *parts: sum(parts), start.params, moments, decay)
    size = difference(after.params, start.params)
    assert difference(after.params, expected) < 1e-4 * size


def test_the_metrics_are_of_the_parameters_before_the_update(make: Any, rows: Batch):
    step, state = make()
    first, metrics = step(state, shaped(rows, 2))
    again, same = step(state, shaped(rows, 2))
    assert float(metrics.loss) == float(same.loss)
    assert difference(first.params, again.params) == 0
    _, second = step(first, shaped(rows, 2))
    assert float(second.loss) < float(metrics.loss)
    assert (int(first.step), int(first.rejected)) == (1, 0)


def test_a_batch_without_targets_is_harmless(make: Any, rows: Batch):
    step, state = make(optim={"weight_decay": 0.0})
    empty = rows._replace(labels=np.full_like(rows.labels, IGNORE_LABEL))
    after, metrics = step(state, shaped(empty, 2))
    assert (float(metrics.loss), int(metrics.targets)) == (0.0, 0)
    assert difference(after.params, state.params) == 0


def test_an_update_that_is_not_finite_is_left_out_and_counted(make: Any, rows: Batch):
    step, state = make()
    good, _ = step(state, shaped(rows, 2))
    weight = state.params.lm_head.weight
    bad_params = jax.tree.map(lambda p: p.at[5].set(jnp.inf) if p is weight else p, state.params)
    bad = TrainState(bad_params, good.opt_state, good.step, good.rejected, good.key)
    after, metrics = step(bad, shaped(rows, 2))
    assert not np.isfinite(float(metrics.loss))
    assert (int(after.rejected), int(metrics.rejected), int(after.step)) == (1, 1, 2)
    for before, now in zip(
        jax.tree.leaves((bad.params, bad.opt_state)),
        jax.tree.leaves((after.params, after.opt_state)),
        strict=True,
    ):
        np.testing.assert_array_equal(before, now)


def test_all_batches_of_a_shape_share_one_program(make: Any, rows: Batch):
    step, state = make()
    for labels in (rows.labels, rows.input_ids, np.full_like(rows.labels, IGNORE_LABEL)):
        state, _ = step(state, shaped(rows._replace(labels=labels), 2))
    assert step.program._cache_size() == 1


def test_other_rates_are_the_same_program(make: Any, rows: Batch):
    step, state = make()
    batch = shaped(rows, 2)
    rates = Rates.of(OptimConfig(lr=0.1, warmup_steps=0, weight_decay=0.5, grad_clip_norm=0), 9)
    for given in (step.rates, rates, Rates.of(OptimConfig(rewarm_from=3, rewarm_steps=2), 50)):
        after, _ = step.program(state, batch, given)
    faster, _ = step.program(state, batch, rates)
    assert step.program._cache_size() == 1
    assert difference(after.params, faster.params) > 0.1


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_run_with_other_rates_has_the_same_program(make_config: Any, name: str):
    changes = (
        {},
        {"lr": 0.02, "weight_decay": 0.0},
        {"grad_clip_norm": 0.0, "warmup_steps": 0, "min_lr_ratio": 0.1},
        {"decay_steps": None, "muon": {"lr_scale": 3.0, "weight_decay_mult": 0.0}},
        {"rewarm_from": 20, "rewarm_steps": 5},
        {"schedule": "wsd", "decay_shape": "linear", "decay_share": 0.3},
        {"schedule": "constant", "muon": {"lr": 0.3}},
        {"lr_scales": {"embedding": 2.0, "head": 0.5, "vectors": 3.0}},
        {"weight_decay_tokens": 1e6},
    )
    # `RATE_KEYS`, by which runs share a program, are these.
    changed = {key for change in changes for key in flat(change)}
    assert changed == RATE_KEYS
    texts = set()
    for number, change in enumerate(changes):
        train = {"steps": 40 + number}
        config = make_config("dummy", optim={"name": name, **change}, train=train)
        texts.add(lower_step(build_program(config), config.train).as_text())
    assert len(texts) == 1


def test_moments_are_float32_whatever_the_parameters_are(make_config: Callable[..., Any]):
    config = make_config("megalodon", model={"param_dtype": "bfloat16"})
    model = build_model(config.model, isolate_documents=False)
    state = jax.eval_shape(lambda: init_state(model, optax.adam(0.1), 0))
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(state.params)}
    assert jnp.dtype("bfloat16") in dtypes
    kept = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim > 0]
    assert {leaf.dtype for leaf in kept} == {jnp.dtype("float32")}


def test_dropout_has_its_own_key_at_each_step_and_microbatch(make: Any, rows: Batch):
    step, state = make("megalodon", deterministic=False, model={"dropout": 0.5})
    row = Batch(*(a[1:2] for a in rows))
    twice = Batch(*(np.concatenate([a, a]) for a in row))
    loss = float(step(state, shaped(twice, 2))[1].loss)
    assert loss == float(step(state, shaped(twice, 2))[1].loss)
    later = TrainState(state.params, state.opt_state, state.step + 1, state.rejected, state.key)
    assert loss != float(step(later, shaped(twice, 2))[1].loss)
    # With one key for both microbatches their mean would be the first one's loss.
    empty = twice._replace(labels=twice.labels.copy())
    empty.labels[1] = IGNORE_LABEL
    assert loss != pytest.approx(float(step(state, shaped(empty, 2))[1].loss), rel=1e-6)


def test_without_dropout_keys_do_not_matter(make: Any, rows: Batch):
    step, state = make()
    other = TrainState(
        state.params, state.opt_state, state.step + 9, state.rejected, jax.random.PRNGKey(99)
    )
    one, two = (step(start, shaped(rows, 2))[1].loss for start in (state, other))
    assert float(one) == float(two)


def test_the_seed_decides_the_first_parameters(make_config: Callable[..., Any]):
    model = build_model(make_config().model, isolate_documents=False)
    optimizer = optax.sgd(0.1)
    one, same, other = (init_state(model, optimizer, seed) for seed in (1, 1, 2))
    assert difference(one.params, same.params) == 0
    assert difference(one.params, other.params) > 0
