from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from chomp.config import MuonConfig, OptimConfig
from chomp.optim import Rates
from chomp.optim.optimizer import orthogonalized_momentum
from chomp.optim.row_norms import normalize_rows

MUON_OWNERS = ("wz", "wv", "wr", "wh1", "wh2", "fc1", "fc2", "fc3", "lm_head")


@pytest.fixture(scope="module")
def grads(params: Any) -> Any:
    """Random gradients, small enough not to be clipped."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda p: jnp.asarray(rng.normal(0, 1e-3, p.shape), jnp.float32), params)


@pytest.fixture(scope="module")
def zeros(params: Any) -> Any:
    return jax.tree.map(jnp.zeros_like, params)


def first_update(optimizer: optax.GradientTransformation, grads: Any, params: Any) -> Any:
    update = jax.jit(lambda g, p: optimizer.update(g, optimizer.init(p), p)[0])
    return update(grads, params)


def is_projection(path: str) -> bool:
    return path.removesuffix(".weight").split(".")[-1] in MUON_OWNERS and path.endswith("weight")


def is_orthogonal(update: Any) -> bool:
    """Whether singular values are about 1, as Newton-Schulz leaves them (the least may lag)."""
    values = np.linalg.svd(np.asarray(update), compute_uv=False)
    return bool(np.median(values) > 0.6 and values.max() < 1.5)


def adams_first(grads: Any, rate: float) -> Any:
    return jax.tree.map(lambda g: -rate * g / (jnp.abs(g) + 1e-8), grads)


def test_muon_updates_are_orthogonal_and_all_others_are_adams(params, grads, named, optimizer_for):
    optimizer = optimizer_for(params, 0.1, name="muon", weight_decay=0.0)
    updates, expected = (
        named(first_update(optimizer, grads, params)),
        named(adams_first(grads, 0.1)),
    )
    for path, update in updates.items():
        if is_projection(path):
            assert is_orthogonal(update / -(0.1 * 100)), path
        else:
            np.testing.assert_allclose(update, expected[path], rtol=1e-4, err_msg=path)
    assert sum(map(is_projection, updates)) == 9


def test_muon_keeps_momentum_for_projections_only(params, named, optimizer_for):
    """The state itself: nothing but a projection has a place in Muon's part of it."""
    state = named(optimizer_for(params, name="muon").init(params))
    of_muon = [path for path in state if "'muon'" in path or "MUON" in path]
    momentum = [path for path in of_muon if path.rpartition("mu.")[2].endswith("weight")]
    assert len(momentum) == 9
    assert all(is_projection(path.rpartition("mu.")[2]) for path in momentum)
    of_adam = [path for path in state if path not in of_muon]
    assert any("cema" in path for path in of_adam)
    assert not any(is_projection(path) for path in of_adam)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_weight_decay_moves_matrices_only(params, zeros, named, optimizer_for, name: str):
    optimizer = optimizer_for(
        params, 0.1, name=name, weight_decay=0.3, muon={"weight_decay_mult": 0.5}
    )
    updates, before = named(first_update(optimizer, zeros, params)), named(params)
    for path, update in updates.items():
        rate = 0.1 * 0.3
        if name == "muon" and is_projection(path):
            rate *= 100 * 0.5
        if is_projection(path) or path == "model.embed.weight":
            np.testing.assert_allclose(update, -rate * before[path], rtol=1e-5, err_msg=path)
            assert np.any(np.asarray(update) != 0), path
        else:
            assert not np.any(np.asarray(update)), path


def test_adamw_is_optaxs_adamw_under_a_mask_of_matrices(params, grads, named, optimizer_for):
    """Some steps in a row, with Nesterov and other settings than the defaults."""
    decayed = {path: is_projection(path) or "embed" in path for path in named(params)}
    mask = jax.tree.unflatten(jax.tree.structure(params), list(decayed.values()))
    adam = {"b1": 0.8, "b2": 0.95, "eps": 1e-6, "nesterov": True}
    reference = optax.adamw(0.1, **adam, weight_decay=0.2, mask=lambda _: mask)
    ours = optimizer_for(params, 0.1, weight_decay=0.2, adam=adam)
    results = []
    for optimizer in (ours, reference):

        @jax.jit
        def three_steps(p: Any, g: Any, optimizer=optimizer) -> Any:
            state = optimizer.init(p)
            for scale in (1.0, -0.3, 0.1):
                scaled = jax.tree.map(lambda leaf, scale=scale: leaf * scale, g)
                updates, state = optimizer.update(scaled, state, p)
                p = optax.apply_updates(p, updates)
            return p

        results.append(named(three_steps(params, grads)))
    for path, value in results[0].items():
        np.testing.assert_allclose(value, results[1][path], rtol=1e-5, atol=1e-7, err_msg=path)


@pytest.mark.parametrize("limit", [0.5, 0.0])
def test_gradients_are_clipped_by_their_global_norm(params, grads, named, optimizer_for, limit):
    large = jax.tree.map(lambda g: g * 1e4, grads)
    optimizer = optimizer_for(params, grad_clip_norm=limit)
    norm = limit or float(optax.tree.norm(large))  # 0: not at all
    _, state = jax.jit(lambda g, p: optimizer.update(g, optimizer.init(p), p))(large, params)
    first_moments = [leaf for path, leaf in named(state).items() if ".mu." in path]
    assert len(first_moments) == len(jax.tree.leaves(params))
    # After one step the first moment is (1 - b1) times the gradient that the optimizer saw.
    assert float(optax.tree.norm(first_moments)) == pytest.approx(0.1 * norm, rel=1e-5)


def test_consistent_rms_gives_every_shape_the_same_size(params, grads, named, optimizer_for):
    scaled = optimizer_for(
        params, 1.0, name="muon", weight_decay=0, muon={"consistent_rms": 0.2, "lr_scale": 1.0}
    )
    plain = optimizer_for(params, 1.0, name="muon", weight_decay=0, muon={"lr_scale": 1.0})
    with_scale = named(first_update(scaled, grads, params))
    without = named(first_update(plain, grads, params))
    shapes = set()
    for path in filter(is_projection, with_scale):
        rms = float(jnp.sqrt(jnp.mean(with_scale[path] ** 2)))
        assert rms == pytest.approx(0.2, rel=0.25), path
        factor = 0.2 * max(with_scale[path].shape) ** 0.5
        np.testing.assert_allclose(with_scale[path], without[path] * factor, rtol=1e-4, atol=1e-6)
        shapes.add(with_scale[path].shape)
    assert len(shapes) >= 3
    for path in set(with_scale) - set(filter(is_projection, with_scale)):
        np.testing.assert_array_equal(with_scale[path], without[path])


def test_all_2d_and_tied_embed_widen_what_muon_updates(params_of, named, optimizer_for):
    """The tied embedding is widened by name, other matrices by shape."""
    tied = params_of(share_emb=True)
    rng = np.random.default_rng(0)
    grads = jax.tree.map(lambda p: jnp.asarray(rng.normal(0, 1e-3, p.shape), jnp.float32), tied)

    def taken(**muon: bool) -> set[str]:
        optimizer = optimizer_for(
            tied, 1.0, name="muon", weight_decay=0, muon={"lr_scale": 1.0} | muon
        )
        updates = named(first_update(optimizer, grads, tied))
        matrices = {path: update for path, update in updates.items() if update.ndim == 2}
        return {path for path, update in matrices.items() if is_orthogonal(update)}

    others = {path for path, leaf in named(tied).items() if leaf.ndim == 2 and "embed" not in path}
    assert taken(allow_all_2d=True) == others
    assert any(not is_projection(path) for path in others)
    with_embedding = taken(allow_tied_embed=True)
    assert with_embedding - set(filter(is_projection, others)) == {"model.embed.weight"}


def test_polar_express_comes_nearer_to_an_orthogonal_matrix():
    """Small singular values too: the farthest is an eighth away, Jordan's a third."""
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.normal(size=(24, 24)))[0] for _ in range(2))
    matrix = {"w": jnp.asarray(left * np.geomspace(1e-2, 1, 24) @ right, jnp.float32)}
    farthest = {}
    for coefficients in ("standard", "polar_express"):
        muon = orthogonalized_momentum(MuonConfig(coefficients=coefficients), None)
        update = jax.jit(lambda g, muon=muon: muon.update(g, muon.init(g))[0])(matrix)["w"]
        values = np.linalg.svd(np.asarray(update), compute_uv=False)
        farthest[coefficients] = np.abs(values - 1).max()
    assert farthest["polar_express"] < 0.13 < 0.25 < farthest["standard"]


def test_rows_of_normalized_updates_are_of_one_size_and_matrices_keep_theirs():
    rows = normalize_rows(0.9)
    rng = np.random.default_rng(0)
    first, second = (rng.normal(size=(6, 8)) * np.geomspace(1, 50, 6)[:, None] for _ in range(2))
    state = rows.init({"w": jnp.zeros((6, 8))})
    update, state = rows.update({"w": jnp.asarray(first, jnp.float32)}, state)
    sizes = np.linalg.norm(update["w"], axis=1)
    np.testing.assert_allclose(sizes, sizes[0], rtol=1e-4)
    assert np.linalg.norm(update["w"]) == pytest.approx(np.linalg.norm(first), rel=1e-4)
    update, _ = rows.update({"w": jnp.asarray(second, jnp.float32)}, state)
    means = [np.square(matrix).mean(axis=1, keepdims=True) for matrix in (first, second)]
    expected = second / np.sqrt((0.9 * 0.1 * means[0] + 0.1 * means[1]) / (1 - 0.9**2))
    expected *= np.linalg.norm(second) / np.linalg.norm(expected)
    np.testing.assert_allclose(update["w"], expected, rtol=1e-4)


def test_muon_s_rows_are_normalized_where_wanted(params, grads, named, optimizer_for):
    muon = {"normalize_neurons": True}
    optimizer = optimizer_for(params, name="muon", weight_decay=0.01, muon=muon)
    for path, update in named(first_update(optimizer, grads, params)).items():
        if is_projection(path):
            # The weight decay is a small part of it.
            sizes = np.linalg.norm(np.asarray(update) + 0.1 * named(params)[path], axis=1)
            np.testing.assert_allclose(sizes, sizes.mean(), rtol=1e-3, err_msg=path)


def test_the_head_is_adam_s_where_it_is_not_muon_s(params, grads, named, optimizer_for):
    optimizer = optimizer_for(params, name="muon", weight_decay=0, muon={"include_head": False})
    updates = named(first_update(optimizer, grads, params))
    expected = named(adams_first(grads, 0.1))["lm_head.weight"]
    np.testing.assert_allclose(updates["lm_head.weight"], expected, rtol=1e-4)


def test_muon_has_a_rate_of_its_own():
    own = Rates.of(OptimConfig(name="muon", lr=2e-3, muon={"lr": 0.05}), 10)
    assert float(own.scales.muon) * 2e-3 == pytest.approx(0.05)


def test_single_groups_have_rates_of_their_own(params, grads, named, optimizer_for):
    scales = {"embedding": 2.0, "head": 3.0, "vectors": 0.5}
    plain = optimizer_for(params, weight_decay=0.3)
    scaled = optimizer_for(params, weight_decay=0.3, lr_scales=scales)
    before, after = (named(first_update(each, grads, params)) for each in (plain, scaled))
    for path, update in after.items():
        factor = 0.5
        if is_projection(path):
            factor = 3.0 if path.startswith("lm_head") else 1.0
        elif "embed" in path:
            factor = 2.0
        np.testing.assert_allclose(update, before[path] * factor, rtol=1e-5, err_msg=path)


def test_cautious_weight_decay_spares_what_its_update_lets_grow(
    params, grads, named, optimizer_for
):
    plain = optimizer_for(params, weight_decay=0.0)
    cautious = optimizer_for(params, weight_decay=0.3, cautious_weight_decay=True)
    without, updates = (named(first_update(each, grads, params)) for each in (plain, cautious))
    for path, weight in named(params).items():
        decayed = is_projection(path) or "embed" in path
        shrinks = np.sign(without[path]) == -np.sign(weight)
        expected = without[path] - 0.1 * 0.3 * weight * (shrinks & decayed)
        np.testing.assert_allclose(updates[path], expected, rtol=1e-5, err_msg=path)
        assert not decayed or 0 < shrinks.mean() < 1


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_weights_shrink_to_1_over_e_in_the_tokens_given(name, params, zeros, named, optimizer_for):
    """500 steps of 20 tokens without a gradient, whatever the rate."""
    optimizer = optimizer_for(params, 3e-3, 20, name=name, lr=3e-3, weight_decay_tokens=10_000)

    @jax.jit
    def run(weights: Any) -> Any:
        def step(_: int, carried: tuple[Any, Any]) -> tuple[Any, Any]:
            weights, state = carried
            updates, state = optimizer.update(zeros, state, weights)
            return optax.apply_updates(weights, updates), state

        return jax.lax.fori_loop(0, 500, step, (weights, optimizer.init(weights)))[0]

    after, before = named(run(params)), named(params)
    for path in ("lm_head.weight", "model.embed.weight"):
        share = np.linalg.norm(after[path]) / np.linalg.norm(before[path])
        assert share == pytest.approx(np.exp(-1), rel=2e-3), path


def test_a_gradient_s_weight_in_adam_s_squares_halves_in_the_tokens_given(
    params, grads, zeros, named, optimizer_for
):
    optimizer = optimizer_for(params, 0.1, 512, adam={"b2_half_life": 2048})
    update = jax.jit(optimizer.update)
    _, state = update(grads, optimizer.init(params), params)
    first = named(state)
    for _ in range(4):
        _, state = update(zeros, state, params)
    for path, value in named(state).items():
        if ".nu." in path:
            np.testing.assert_allclose(value, first[path] / 2, rtol=1e-4, err_msg=path)
