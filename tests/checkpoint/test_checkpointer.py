import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chomp.checkpoint.arrays import by_path, read_numpy, write_items
from chomp.checkpoint.checkpointer import Checkpointer
from chomp.checkpoint.manifest import write_manifest
from chomp.errors import ResumeError
from chomp.types import Progress

Open = Callable[..., Checkpointer]
META = {"config": {"train": {"steps": 9}}, "versions": {"jax": "1"}}


def assert_same_bits(left: Any, right: Any) -> None:
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.mark.parametrize("async_save", [False, True])
def test_a_state_comes_back_bit_for_bit(opened: Open, state, shapes, async_save: bool):
    checkpoints = opened(async_save=async_save)
    progress = Progress(3, 4, 2**40 + 1, 5, 6, 7, 8)
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
    big = jax.tree.map(lambda leaf: jnp.ones((300, *leaf.shape), leaf.dtype), shapes)
    large = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), big)
    checkpoints = opened(async_save=True)
    step = jax.jit(lambda s: jax.tree.map(lambda leaf: leaf + 1, s), donate_argnums=0)
    big = step(big)
    before = jax.tree.leaves(big)[0]
    checkpoints.save(big, Progress(1), {}, META)
    for _ in range(5):
        big = step(big)
    assert before.is_deleted()
    assert checkpoints.last_good is None  # it is still being written
    checkpoints.wait()
    assert (checkpoints.last_good, checkpoints.problems()) == (1, [])
    restored = opened().restore_state(1, large)
    assert all((np.asarray(leaf) == 2).all() for leaf in jax.tree.leaves(restored))


def test_the_newest_are_kept(opened: Open, state):
    checkpoints = opened(max_to_keep=2)
    for step in (1, 2, 5):
        checkpoints.save(state, Progress(step), {}, META)
    assert checkpoints.steps() == [2, 5]


def test_a_step_is_saved_once(opened: Open, state):
    checkpoints = opened()
    checkpoints.save(state, Progress(1, tokens_seen=10), {}, META)
    checkpoints.save(state, Progress(1, 99), {}, META)
    assert checkpoints.restore_run(1).progress.tokens_seen == 10


def test_some_are_kept_for_good(opened: Open, state):
    checkpoints = opened(max_to_keep=1, keep_every=4)
    for step in range(1, 11):
        checkpoints.save(state, Progress(step), {}, META)
    assert checkpoints.steps() == [4, 8, 10]
    assert checkpoints.good_steps() == [4, 8, 10]
    assert {path.name for path in checkpoints.folder.iterdir()} == {"4", "8", "10"}


def test_leftovers_of_a_killed_save_go_when_the_next_run_prepares(opened: Open, state, tmp_path):
    checkpoints = opened(owner="me")
    checkpoints.save(state, Progress(1), {}, META)
    leftover = checkpoints.folder / "unfinished-me-2" / "2" / "params.orbax-checkpoint-tmp"
    leftover.mkdir(parents=True)
    reader = opened()
    assert reader.choose("latest").step == 1
    reader.restore_state(1, state)
    assert leftover.exists()
    opened(owner="you").prepare(state)
    assert leftover.exists()
    opened(owner="me").prepare(state)
    assert [path.name for path in checkpoints.folder.iterdir()] == ["1"]


def test_reading_writes_nothing(opened: Open, tmp_path: Path):
    assert opened(tmp_path / "nowhere").choose("latest").step is None
    assert list(tmp_path.iterdir()) == []


def test_the_record_is_plain_json(opened: Open, state):
    opened().save(state, Progress(3, tokens_seen=17), {"at": 5}, META)
    record = json.loads((opened().path(3) / "run.json").read_text())
    assert (record["progress"]["tokens_seen"], record["data"]["at"]) == (17, 5)
    assert record["meta"] == META


ODD_NAMES = (
    "sweep [lr 3e-4]",
    "".join(chr(code) for code in range(32, 127) if chr(code) not in "/"),
    "größe 試",
    os.fsdecode(b"caf\xe9\n"),
    "gs:",
    "~",
)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_folders_of_any_name(opened: Open, state, shapes, tmp_path: Path, name: str):
    checkpoints = opened(tmp_path / name / "checkpoints")
    checkpoints.save(state, Progress(3), {}, META)
    assert (checkpoints.problems(), checkpoints.good_steps()) == ([], [3])
    checkpoints.check_shapes(3, shapes.params)
    assert_same_bits(checkpoints.restore_state(3, shapes), state)
    assert read_numpy(checkpoints.path(3), "params").keys() == by_path(state.params).keys()


def test_a_folder_above_the_working_folder(
    opened: Open, state, shapes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    checkpoints = opened(Path("../checkpoints"))
    checkpoints.save(state, Progress(3), {}, META)
    assert (checkpoints.problems(), checkpoints.good_steps()) == ([], [3])
    assert_same_bits(checkpoints.restore_state(3, shapes), state)


def test_good_means_readable_and_else_a_save_does_not_count(
    opened: Open, state, monkeypatch: pytest.MonkeyPatch
):
    """Whatever Orbax leaves out silently."""
    checkpoints = opened()
    checkpoints.save(state, Progress(1), {}, META)

    def without(name: str, keep: int):
        def write(folder: Path, items: dict[str, Any]) -> None:
            fewer = dict(list(items[name].items())[:keep])
            write_items(folder, items | {name: fewer})

        return write

    for name in ("params", "train"):
        for keep in (0, 1, len(by_path(state.params)) - 1):
            with monkeypatch.context() as patch:
                patch.setattr("chomp.checkpoint.draft.write_items", without(name, keep))
                checkpoints.save(state, Progress(2), {}, META)
            [problem] = checkpoints.problems()
            assert "checkpoint of step 2 not saved" in problem
    with monkeypatch.context() as patch:
        patch.setattr("orbax.checkpoint.StandardCheckpointHandler.finalize", lambda *_: None)
        patch.setattr("chomp.checkpoint.arrays._merge", lambda place: None)
        checkpoints.save(state, Progress(2), {}, META)
    [problem] = checkpoints.problems()
    assert "manifest.ocdbt wasn't written" in problem
    assert checkpoints.last_good == 1
    assert [path.name for path in checkpoints.folder.iterdir()] == ["1"]


def test_without_its_index_a_checkpoint_is_still_read(opened: Open, state, shapes):
    """As earlier versions saved it where the path has brackets."""
    checkpoints = opened()
    checkpoints.save(state, Progress(3), {}, META)
    place = checkpoints.path(3)
    for item in ("params", "train"):
        (place / item / "manifest.ocdbt").unlink()
        shutil.rmtree(place / item / "d")
    (place / "manifest.json").unlink()
    write_manifest(place, 3, 0)
    before = sorted(path.name for path in place.rglob("*"))
    assert checkpoints.good_steps() == [3]
    checkpoints.check_shapes(3, shapes.params)
    assert_same_bits(checkpoints.restore_state(3, shapes), state)
    assert sorted(path.name for path in place.rglob("*")) == before
    (place / "train" / "ocdbt.process_0" / "manifest.ocdbt").unlink()
    (place / "manifest.json").unlink()
    write_manifest(place, 3, 0)
    assert "train/ocdbt.process_0/manifest.ocdbt" in str(checkpoints.problem(3))
    assert checkpoints.complete(3) is None
