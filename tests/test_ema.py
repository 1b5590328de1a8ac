"""`train.ema`: an average of the parameters, in runs, over resumes and in the commands."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import yaml

from chomp import open_run
from chomp.checkpoint.arrays import by_path, read_numpy

STEPS = 6
SECTIONS = {
    "train": {"steps": STEPS, "eval_every": 3},
    "checkpoint": {"save_every": 1, "max_to_keep": 100},
    "optim": {"lr": 0.05, "decay_steps": 37},
}
Train = Callable[..., Path]


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory, values: Any, chomp: Any) -> Train:
    """Train a run of the bigram model with options, and return its folder."""
    folder = tmp_path_factory.mktemp("ema")
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(values(**SECTIONS)), "utf-8")

    def run(name: str, *options: str) -> Path:
        done = chomp("train", config, "--run-dir", folder / name, *options)
        assert done.code == 0, done.err
        return folder / name

    return run


@pytest.fixture(scope="module")
def plain(train: Train) -> Path:
    return train("plain")


@pytest.fixture(scope="module")
def averaged(train: Train) -> Path:
    return train("averaged", "-o", "train.ema=0.7")


def saved(run: Path, step: int, item: str) -> dict[str, np.ndarray]:
    return read_numpy(run / "checkpoints" / str(step), item)


def expected(run: Path, decay: float, begin: int, step: int) -> dict[str, np.ndarray]:
    """Return the average, in float64, of the parameters that the run's checkpoints hold."""
    average = saved(run, begin + 1, "params")
    for number in range(2, step - begin + 1):
        share = max(1 - decay, 1 / number)
        new = saved(run, begin + number, "params")
        average = {name: (1 - share) * average[name] + share * new[name] for name in new}
    return average


def assert_close(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-7)


def test_a_mean_at_first_then_exponential(averaged: Path):
    for step in range(1, STEPS + 1):
        assert_close(saved(averaged, step, "average"), expected(averaged, 0.7, 0, step))
    last, params = saved(averaged, STEPS, "average"), saved(averaged, STEPS, "params")
    assert any(np.abs(last[name] - params[name]).max() > 1e-3 for name in params)


def test_the_run_itself_has_the_same_bits(plain: Path, averaged: Path, read_rows: Any):
    losses = [
        [row["loss"] for row in read_rows(run / "metrics.jsonl")] for run in (plain, averaged)
    ]
    assert losses[0] == losses[1]
    for item in ("params", "train"):
        without, with_it = saved(plain, STEPS, item), saved(averaged, STEPS, item)
        assert without.keys() == with_it.keys()
        assert all(without[name].tobytes() == with_it[name].tobytes() for name in without)


def test_a_mean_of_the_end(train: Train):
    run = train("tail", "-o", "train.ema=1.0", "-o", "train.ema_from=2")
    params = [saved(run, step, "params") for step in range(3, STEPS + 1)]
    mean = {name: np.mean([each[name] for each in params], axis=0) for name in params[0]}
    assert_close(saved(run, STEPS, "average"), mean)
    early, newest = saved(run, 2, "average"), saved(run, 2, "params")
    assert all((early[name] == newest[name]).all() for name in newest)


def test_it_goes_on_exactly(train: Train, averaged: Path, chomp: Any):
    run = train("stopped", "-o", "train.ema=0.7", "-o", "train.steps=4")
    done = chomp("train", "--run-dir", run, "--resume", 3, "-o", f"train.steps={STEPS}")
    assert done.code == 0, done.err
    there, here = saved(averaged, STEPS, "average"), saved(run, STEPS, "average")
    assert all(there[name].tobytes() == here[name].tobytes() for name in there)
    assert chomp("checkpoints", "diff", averaged, run).code == 0


def test_it_may_begin_and_end_with_a_resume(train: Train, plain: Path, chomp: Any):
    run = plain.with_name("later")
    shutil.copytree(plain, run)
    resume = ["train", "--run-dir", run, "--resume", 3, "-o", "train.ema=0.7"]
    refused = chomp(*resume)
    assert refused.code == 2
    assert "train.ema_from: must be 3 or later (got 0)" in refused.err
    assert chomp(*resume, "-o", "train.ema_from=3").code == 0
    assert_close(saved(run, STEPS, "average"), expected(run, 0.7, 3, STEPS))
    # No further back than it goes.
    back = ["train", "--run-dir", run, "--resume", 5, "-o", "train.ema=0.7"]
    refused = chomp(*back, "-o", "train.ema_from=2")
    assert "train.ema_from: must be 3 or later (got 2)" in refused.err
    done = chomp("train", "--run-dir", run, "--resume", 5, "-o", "train.ema=null")
    assert done.code == 0, done.err
    assert not (run / "checkpoints" / str(STEPS) / "average").exists()


def test_it_is_evaluated_too(averaged: Path, read_rows: Any, chomp: Any):
    rows = [row for row in read_rows(averaged / "metrics.jsonl") if "eval_loss" in row]
    assert [row["step"] for row in rows] == [3, 6]
    for row in rows:
        place = f"{averaged}:{row['step']}"
        for options, prefix in ((["--ema"], "ema_"), ([], "")):
            found = json.loads(chomp("eval", place, "--json", *options).out)
            assert found["ema"] == bool(options)
            assert found["loss"] == row[f"{prefix}eval_loss"]
            assert found["bits_per_byte"] == row[f"{prefix}eval_bits_per_byte"]
        assert row["ema_eval_loss"] != row["eval_loss"]
        assert "ema_eval_targets" not in row


def test_python_reads_it(averaged: Path):
    found = by_path(jax.device_get(open_run(averaged, ema=True).params))
    wanted = saved(averaged, STEPS, "average")
    assert all((found[name] == wanted[name]).all() for name in wanted)


def test_a_run_without_one_says_so(plain: Path, chomp: Any):
    done = chomp("eval", plain, "--ema")
    assert done.code != 0
    assert "holds no average of the parameters" in done.err and "leave out --ema" in done.err


def test_it_begins_before_the_last_step(plain: Path, chomp: Any):
    config = plain.with_name("config.yaml")
    options = ["-o", "train.ema=0.9", "-o", f"train.ema_from={STEPS}"]
    done = chomp("train", config, "--run-dir", plain.with_name("never"), *options)
    assert done.code == 2
    assert f"train.ema_from: must be less than train.steps, which is {STEPS}" in done.err


def test_of_parameters_in_bfloat16_it_is_in_float32(train: Train):
    run = train("bfloat16", "-o", "train.ema=0.7", "-o", "model.param_dtype=bfloat16")
    average = saved(run, STEPS, "average")
    assert {array.dtype for array in average.values()} == {np.dtype("float32")}
    row = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert row["ema_eval_loss"] != row["eval_loss"]
    assert open_run(run, ema=True).score(["def f(x):\n    return x\n"])[0].loss > 0
