"""Runs that differ in one place: the verdict names it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
import yaml

from chomp.checkpoint.checkpointer import Checkpointer
from chomp.config import load_config
from chomp.proof.trial import Trial
from chomp.proof.verdict import differences
from chomp.trainer.components import build_components

STEPS, CHANGED = 6, 4


@pytest.fixture(scope="module")
def straight(tmp_path_factory: Any, values: Any, chomp: Any) -> Trial:
    folder = tmp_path_factory.mktemp("verdict")
    config = folder / "config.yaml"
    sections = {"train": {"steps": STEPS, "eval_every": 3}, "logging": {"ledger_every": 1}}
    config.write_text(yaml.safe_dump(values("dummy", **sections)), "utf-8")
    done = chomp("train", config, "--run-dir", folder / "straight")
    assert done.code == 0, done.err
    return Trial(config, folder / "straight")


@pytest.fixture
def copy(straight: Trial, tmp_path: Path) -> Trial:
    shutil.copytree(straight.folder.path, tmp_path / "killed")
    return Trial(straight.config, tmp_path / "killed")


def edit(trial: Trial, name: str, change: Callable[[list[dict[str, Any]]], None]) -> None:
    rows = trial.rows(name)
    change(rows)
    path = trial.folder.path / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def test_a_copy_is_equal(straight: Trial, copy: Trial):
    assert [row["step"] for row in straight.rows("metrics.jsonl")] == [*range(1, STEPS + 1)]
    assert list(differences(straight, copy)) == []


def test_times_may_differ(straight: Trial, copy: Trial):
    edit(copy, "metrics.jsonl", lambda rows: rows[2].update(step_time_s=9.0, tokens_per_sec=1.0))
    assert list(differences(straight, copy)) == []


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("metrics.jsonl", "loss", 0.0),
        ("metrics.jsonl", "loss", float("nan")),
        ("metrics.jsonl", "grad_norm", 0.0),
        ("metrics.jsonl", "batch_hash", "0123456789abcdef"),
        ("metrics.jsonl", "epoch", -0.0),
        ("metrics.jsonl", "something_new", None),
        ("ledger.jsonl", "hash", "0123456789abcdef"),
        ("ledger.jsonl", "docs", {}),
        ("ledger.jsonl", "batch", 77),
    ],
)
def test_one_value_is_named(straight: Trial, copy: Trial, name: str, key: str, value: Any):
    def change(rows: list[dict[str, Any]]) -> None:
        next(row for row in rows if row["step"] == CHANGED)[key] = value

    edit(copy, name, change)
    (line,) = differences(straight, copy)
    assert line.startswith(f"step {CHANGED}, {name}: {key} is {json.dumps(value)}, straight ")


def test_the_last_bit_of_a_loss_counts(straight: Trial, copy: Trial):
    def change(rows: list[dict[str, Any]]) -> None:
        nearest = jnp.nextafter(jnp.float32(rows[1]["loss"]), jnp.float32(9))
        rows[1]["loss"] = float(nearest)

    edit(copy, "metrics.jsonl", change)
    (line,) = differences(straight, copy)
    assert line.startswith("step 2, metrics.jsonl: loss is ")


def test_an_evaluation_is_compared(straight: Trial, copy: Trial):
    edit(copy, "metrics.jsonl", lambda rows: rows[2].update(eval_loss=1.0))
    (line,) = differences(straight, copy)
    assert line.startswith("step 3, metrics.jsonl: eval_loss is 1.0, straight ")


@pytest.mark.parametrize("name", ["metrics.jsonl", "ledger.jsonl"])
def test_a_missing_row_is_named_alone(straight: Trial, copy: Trial, name: str):
    edit(copy, name, lambda rows: rows.pop(CHANGED))
    step = straight.rows(name)[CHANGED]["step"]
    assert list(differences(straight, copy)) == [f"step {step}, {name}: 0 rows, straight 1"]


@pytest.mark.parametrize("name", ["metrics.jsonl", "ledger.jsonl"])
def test_a_doubled_row_is_named_alone(straight: Trial, copy: Trial, name: str):
    edit(copy, name, lambda rows: rows.insert(CHANGED, rows[CHANGED]))
    step = straight.rows(name)[CHANGED]["step"]
    assert list(differences(straight, copy)) == [f"step {step}, {name}: 2 rows, straight 1"]


def test_rows_out_of_order_are_told(straight: Trial, copy: Trial):
    edit(copy, "metrics.jsonl", lambda rows: rows.reverse())
    assert list(differences(straight, copy)) == ["metrics.jsonl: rows are in another order"]


def test_samples_are_compared(straight: Trial, copy: Trial):
    for trial, text in ((straight, "def f"), (copy, "def g")):
        line = json.dumps({"step": 3, "prompt": "def", "text": text}) + "\n"
        (trial.folder.path / "samples.jsonl").write_text(line, "utf-8")
    found = list(differences(straight, copy))
    (straight.folder.path / "samples.jsonl").unlink()
    assert found == ['step 3, samples.jsonl: text is "def g", straight "def f"']


def test_the_first_step_comes_first(straight: Trial, copy: Trial):
    edit(copy, "metrics.jsonl", lambda rows: rows[4].update(loss=0.0))
    edit(copy, "ledger.jsonl", lambda rows: rows[2].update(hash="0"))
    first, second = differences(straight, copy)
    assert first.startswith("step 2, ledger.jsonl: hash ")
    assert second.startswith("step 5, metrics.jsonl: loss ")


@pytest.mark.parametrize("leaf", range(7))
def test_one_flipped_bit_of_the_state_is_named(straight: Trial, copy: Trial, leaf: int):
    setup = build_components(load_config(straight.config), None)
    checkpoints = Checkpointer(copy.checkpoints.folder)
    run = checkpoints.restore_run(STEPS)
    state = checkpoints.restore_state(STEPS, setup.program.shapes)
    leaves, tree = jax.tree.flatten(state)
    floats = [i for i, a in enumerate(leaves) if a.dtype == jnp.float32]
    if leaf >= len(floats):
        pytest.skip("there are fewer")
    place = floats[leaf]
    path = jax.tree_util.tree_leaves_with_path(state)[place][0]
    bits = jax.lax.bitcast_convert_type(leaves[place], jnp.uint32)
    bits = bits.at[(0,) * bits.ndim].set(bits[(0,) * bits.ndim] ^ 1)
    leaves[place] = jax.lax.bitcast_convert_type(bits, jnp.float32)
    shutil.rmtree(copy.checkpoints.path(STEPS))
    checkpoints.save(jax.tree.unflatten(tree, leaves), run.progress, run.data_state, run.meta)
    setup.data.close()
    checkpoints.close()
    (line,) = differences(straight, copy)
    assert line.startswith("final state, ")
    assert jax.tree_util.keystr(path[-1:]) in line
    assert ": float32 " in line and ", 1 of " in line


def test_a_run_without_a_checkpoint_differs(straight: Trial, copy: Trial):
    shutil.rmtree(copy.checkpoints.path(STEPS))
    (line,) = differences(straight, copy)
    assert line.startswith("final state: ") and "no checkpoint" in line
