from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chomp.checkpoint import Checkpoints
from chomp.errors import ResumeError
from chomp.parts import build_learner
from chomp.types import Progress, TrainState

Open = Callable[..., Checkpoints]
META = {"config": {"train": {"steps": 9}}, "versions": {"jax": "1"}}


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    alive: list[Checkpoints] = []

    def open_(max_to_keep: int | None = None, async_save: bool = False) -> Checkpoints:
        folder = tmp_path / "checkpoints"
        alive.append(Checkpoints(folder, max_to_keep=max_to_keep, async_save=async_save))
        return alive[-1]

    yield open_
    for checkpoints in alive:
        checkpoints.close()


@pytest.fixture(scope="module")
def shapes(make_config: Callable[..., Any]) -> TrainState:
    """A state with all that is special: Muon's momentum, bfloat16, keys, counts."""
    config = make_config(
        "megalodon", optim={"name": "muon"}, model={"param_dtype": "bfloat16", "swiglu": True}
    )
    return build_learner(config).shapes


@pytest.fixture(scope="module")
def state(shapes: TrainState) -> TrainState:
    rng = np.random.default_rng(0)

    def fill(leaf: Any) -> jax.Array:
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            return jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype)
        return jnp.asarray(rng.integers(0, 2**31 - 1, leaf.shape), leaf.dtype)

    return jax.tree.map(fill, shapes)


def assert_same_bits(left: Any, right: Any) -> None:
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.mark.parametrize("async_save", [False, True])
def test_a_state_comes_back_bit_for_bit(opened: Open, state, shapes, async_save: bool):
    checkpoints = opened(async_save=async_save)
    progress = Progress(3, 2**40 + 1, 5, 6, 7, 8)
    data_state = {"train": {"at": [1, 2], "deep": {"x": None}}, "samples": None}
    checkpoints.save(state, progress, data_state, META)
    checkpoints.close()
    again = opened()
    assert again.steps() == [3]
    assert_same_bits(again.restore_state(3, shapes), state)
    saved = again.restore_run(3)
    assert saved.progress == progress
    assert saved.data_state == data_state
    assert saved.meta == META


def test_parameters_of_other_shapes_are_noticed(opened: Open, state, shapes):
    opened().save(state, Progress(3), {}, META)
    opened().check_shapes(3, shapes.params)
    wider = jax.tree.map(lambda p: jax.ShapeDtypeStruct((*p.shape, 2), p.dtype), shapes.params)
    with pytest.raises(ResumeError, match=r"parameter .* has shape .* in the checkpoint of step 3"):
        opened().check_shapes(3, wider)


def test_parameters_come_alone(opened: Open, state, shapes):
    opened().save(state, Progress(3), {}, META)
    assert_same_bits(opened().restore_params(3, shapes.params), state.params)


def test_an_async_save_does_not_see_later_changes(opened: Open, shapes):
    """The next step reuses the memory of the state that is being written."""
    big = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), shapes)
    checkpoints = opened(async_save=True)
    step = jax.jit(lambda s: jax.tree.map(lambda leaf: leaf + 1, s), donate_argnums=0)
    checkpoints.save(big, Progress(1), {}, META)
    for _ in range(5):
        big = step(big)
    checkpoints.close()
    restored = opened().restore_state(1, shapes)
    assert all((np.asarray(leaf) == 1).all() for leaf in jax.tree.leaves(restored))


def test_the_newest_are_kept(opened: Open, state):
    checkpoints = opened(max_to_keep=2)
    for step in (1, 2, 5):
        checkpoints.save(state, Progress(step), {}, META)
    assert checkpoints.steps() == [2, 5]


def test_a_step_is_saved_once(opened: Open, state):
    checkpoints = opened()
    checkpoints.save(state, Progress(1, 10), {}, META)
    checkpoints.save(state, Progress(1, 99), {}, META)
    assert checkpoints.restore_run(1).progress.tokens_seen == 10


def test_steps_by_name(opened: Open, state):
    checkpoints = opened()
    assert checkpoints.resolve("latest") is None
    for step in (2, 10):
        checkpoints.save(state, Progress(step), {}, META)
    assert checkpoints.resolve("latest") == 10
    assert checkpoints.resolve("2") == 2
    for wanted in ("3", "-2", "newest", ""):
        with pytest.raises(ResumeError, match=r"saved steps: 2, 10.*latest"):
            checkpoints.resolve(wanted)


def test_later_checkpoints_are_set_aside_not_lost(opened: Open, state, tmp_path: Path):
    checkpoints = opened(max_to_keep=2)
    for step in (1, 2, 3):
        checkpoints.save(state, Progress(step), {}, META)
    assert checkpoints.set_aside_after(3) is None
    aside = checkpoints.set_aside_after(2)
    assert aside == tmp_path / "checkpoints-set-aside-1"
    assert [path.name for path in aside.iterdir()] == ["3"]
    assert checkpoints.resolve("latest") == 2
    checkpoints.save(state, Progress(3, 77), {}, META)
    assert checkpoints.restore_run(3).progress.tokens_seen == 77
    assert checkpoints.set_aside_after(2) == tmp_path / "checkpoints-set-aside-2"
