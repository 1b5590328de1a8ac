"""Runs that begin from other runs: with everything (`branch`), or with the weights alone."""

import filecmp
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from chomp.checkpoint.arrays import PARAMS, read_numpy

Values = dict[str, Any]
TIMES = ("step_time_s", "tokens_per_sec", "data_wait_share", "fraction_of_matmul_bound")
STEPS = 6


@pytest.fixture(scope="module")
def source(
    tmp_path_factory: pytest.TempPathFactory, values: Callable[..., Values], chomp: Any
) -> Path:
    """A run of the bigram model, saved at steps 2, 4 and 6. Not to be written to."""
    folder = tmp_path_factory.mktemp("source")
    sections = {
        "train": {"steps": STEPS, "eval_every": 3},
        "checkpoint": {"save_every": 2},
        "data": {"packing_mode": "bin"},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(values("dummy", **sections)), "utf-8")
    done = chomp("train", folder / "config.yaml", "--run-dir", folder / "run")
    assert done.code == 0, done.err
    return folder / "run"


def contents(folder: Path) -> dict[str, Any]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def rows(run: Path) -> list[Values]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    kept = (json.loads(line) for line in lines)
    gone = (*TIMES, "first_step_compile_time_s", "peak_memory_gb", "device_memory_gb")
    return [{key: value for key, value in row.items() if key not in gone} for row in kept]


def params(run: Path, step: int) -> dict[str, np.ndarray]:
    return read_numpy(run / "checkpoints" / str(step), PARAMS)


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize("step", [2, 4])
def test_a_branch_goes_on_exactly_and_leaves_its_source_alone(
    chomp: Any, source: Path, tmp_path: Path, step: int
):
    before = contents(source)
    made = chomp("branch", f"{source}:{step}", tmp_path / "new")
    assert made.code == 0, made.err
    assert "changed" not in made.out
    done = chomp("train", "--run-dir", tmp_path / "new", "--resume", "latest")
    assert (done.code, "warning" in done.out) == (0, False), done.out
    assert contents(source) == before
    assert rows(tmp_path / "new") == rows(source)
    assert same(params(tmp_path / "new", STEPS), params(source, STEPS))
    ledger = [json.loads(line) for line in (tmp_path / "new" / "ledger.jsonl").open()]
    whole = [json.loads(line) for line in (source / "ledger.jsonl").open()]
    assert ledger[0] == whole[0] | {"step": step}
    assert ledger[1:] == whole[1 + step :]


def test_what_is_changed_is_changed_from_there_on(chomp: Any, source: Path, tmp_path: Path):
    new = tmp_path / "new"
    made = chomp("branch", f"{source}:4", new, "-o", "optim.lr=1e-5", "-o", "train.steps=8")
    assert "optim.lr: was 0.003, now 1e-05" in made.out
    done = chomp("train", "--run-dir", new, "--resume", "latest")
    assert done.code == 0, done.err
    assert [row["step"] for row in rows(new)] == list(range(1, 9))
    assert rows(new)[:4] == rows(source)[:4]
    assert rows(new)[4]["lr"] < rows(source)[4]["lr"] / 100
    # Once it has a checkpoint of its own, it is a run as any other.
    refused = chomp("train", "--run-dir", new, "--resume", "latest", "-o", "optim.lr=1e-4")
    assert (refused.code, "--allow-change optim.lr" in refused.err) == (2, True)


def test_a_branch_goes_on_with_other_data(
    chomp: Any, source: Path, tmp_path: Path, texts: list[str]
):
    (tmp_path / "other.txt").write_text("\n".join(reversed(texts)) * 3, "utf-8")
    files = json.dumps([str(tmp_path / "other.txt")])
    made = chomp("branch", f"{source}:4", tmp_path / "new", "-o", f"data.files={files}")
    assert made.code == 0, made.err
    # What the files hold is known only when they are read.
    resume = ("train", "--run-dir", tmp_path / "new", "--resume", "latest")
    done = chomp(*resume, "--allow-change", "data.content")
    assert done.code == 0, done.err + done.out
    assert rows(tmp_path / "new")[-1]["step"] == STEPS


def test_a_tree_of_branches_is_shown_and_traced(chomp: Any, source: Path, tmp_path: Path):
    first = tmp_path / "first"
    shutil.copytree(source, first)
    shutil.copytree(source.parent / "run", tmp_path / "unrelated")
    for run, step, new in ((first, 2, "a"), (first, 4, "b"), (tmp_path / "b", 4, "c")):
        assert chomp("branch", f"{run}:{step}", tmp_path / new).code == 0
    assert chomp("train", "--run-dir", tmp_path / "c", "--resume", "latest").code == 0
    shown = chomp("status", first).out.splitlines()
    tree = shown[shown.index("runs that began from it") + 1 :][:3]
    assert tree == [
        f"  {tmp_path / 'a'}  after step 2",
        f"  {tmp_path / 'b'}  after step 4",
        f"    {tmp_path / 'c'}  after step 4",
    ]
    found = json.loads(chomp("status", tmp_path / "c", "--json").out)
    assert (found["parent"]["folder"], found["parent"]["step"]) == (str(tmp_path / "b"), 4)
    for step in (1, 4, 5):
        expected = chomp("trace", first, "--step", step, "--json")
        assert expected.code == 0, expected.err
        assert chomp("trace", tmp_path / "c", "--step", step, "--json").out == expected.out
    shutil.rmtree(first)
    done = chomp("trace", tmp_path / "c", "--step", 1)
    assert (done.code, str(first) in done.err) == (2, True)


def test_a_kill_in_between_leaves_nothing_that_looks_like_a_run(
    chomp: Any, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", killed)
        assert chomp("branch", source, tmp_path / "new").code != 0
    assert not (tmp_path / "new").exists()
    assert chomp("branch", source, tmp_path / "new").code == 0


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("{source}:3", "{tmp}/new"), "saved steps: 2, 4, 6"),
        (("{tmp}/nothing", "{tmp}/new"), "holds no run"),
        (("{source}", "{tmp}"), "is there already"),
        (("{source}", "{source}"), "is there already"),
        (("{source}", "{tmp}/new", "-o", "train.steps=5"), "train.steps: 5 is less than the 6"),
        (("{source}", "{tmp}/new", "-o", "optim.lrr=5"), "did you mean 'optim.lr'"),
        (("{source}", "{tmp}/new", "-o", "checkpoint.enabled=false"), "checkpoint.enabled"),
    ],
)
def test_what_can_not_be_branched_is_one_line_and_leaves_nothing(
    chomp: Any, source: Path, tmp_path: Path, args: tuple, said: str
):
    (tmp_path / "mine").write_text("mine")
    done = chomp("branch", *(str(arg).format(source=source, tmp=tmp_path) for arg in args))
    assert (done.code, said in done.err) == (2, True), done.err
    assert os.listdir(tmp_path) == ["mine"]


def test_weights_alone_begin_a_new_run(chomp: Any, source: Path, tmp_path: Path, values: Any):
    config = tmp_path / "config.yaml"
    sections = {"train": {"steps": 4, "seed": 5}, "optim": {"lr": 1e-9}}
    config.write_text(yaml.safe_dump(values("dummy", **sections)), "utf-8")
    done = chomp("train", config, "--run-dir", tmp_path / "new", "--init-from", f"{source}:4")
    assert done.code == 0, done.err
    assert f"weights    of {source} after step 4" in done.out
    begun, taken = params(tmp_path / "new", 4), params(source, 4)
    for name in taken:
        assert np.allclose(begun[name], taken[name], atol=1e-6)
        assert not np.allclose(begun[name], params(source, 6)[name], atol=1e-6)
    assert [row["step"] for row in rows(tmp_path / "new")] == [1, 2, 3, 4]
    status = json.loads(chomp("status", tmp_path / "new", "--json").out)
    assert (status["parent"]["kind"], status["parent"]["step"]) == ("init", 4)
    # The source is needed no more.
    resumed = chomp(
        *("train", "--run-dir", tmp_path / "new", "--resume", "latest", "-o", "train.steps=5")
    )
    assert resumed.code == 0, resumed.err


def test_a_run_killed_before_its_first_checkpoint_has_them_again(
    chomp: Any, source: Path, tmp_path: Path, values: Any
):
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(values("dummy", train={"steps": 4})), "utf-8")
    new = tmp_path / "new"
    assert chomp("train", config, "--run-dir", new, "--init-from", source).code == 0
    straight = params(new, 4)
    shutil.rmtree(new / "checkpoints")
    done = chomp("train", "--run-dir", new, "--resume", "latest")
    assert done.code == 0, done.err
    assert same(params(new, 4), straight)


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"model": {"d_model": 32}}, "model.d_model is 16 there and 32 here"),
        ({"data": {"tokenizer": {"byte_offset": 4}}}, "data.tokenizer.byte_offset is 3 there"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    chomp: Any, source: Path, tmp_path: Path, values: Any, sections: Values, said: str
):
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(values("dummy", **sections)), "utf-8")
    for more in (("--run-dir", tmp_path / "new"), ("--dry-run",)):
        done = chomp("train", config, *more, "--init-from", source)
        assert (done.code, said in done.err) == (2, True), done.err
        assert "train.init_from" in done.err


def test_what_init_from_does_not_find_is_named(chomp: Any, tmp_path: Path, values: Any):
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(values("dummy")), "utf-8")
    done = chomp("train", config, "--run-dir", tmp_path / "n", "--init-from", tmp_path / "nothing")
    assert (done.code, f"{tmp_path}/nothing holds no run" in done.err) == (2, True), done.err
    done = chomp("train", "--run-dir", tmp_path, "--resume", "latest", "--init-from", "x")
    assert (done.code, "--init-from is for a new run" in done.err) == (2, True)


def test_the_copy_is_whole(chomp: Any, source: Path, tmp_path: Path):
    assert chomp("branch", source, tmp_path / "new").code == 0
    same_files = filecmp.dircmp(source / "checkpoints" / "6", tmp_path / "new/checkpoints/6")
    assert not (same_files.left_only or same_files.right_only or same_files.diff_files)
    assert chomp("checkpoints", "verify", tmp_path / "new").code == 0


@pytest.mark.parametrize("kind", ["hf", "jax"])
def test_an_exported_model_begins_a_new_run(
    chomp: Any, small_run: Path, tmp_path: Path, values: Any, kind: str
):
    out, config = tmp_path / "out", tmp_path / "config.yaml"
    assert chomp("export", f"{small_run}:20", out, "--format", kind).code == 0
    sections = {"train": {"seed": 9}, "optim": {"lr": 1e-9}}
    config.write_text(yaml.safe_dump(values("megalodon", **sections)), "utf-8")
    done = chomp("train", config, "--run-dir", tmp_path / "new", "--init-from", out)
    assert done.code == 0, done.err
    begun, taken = params(tmp_path / "new", 4), params(small_run, 20)
    assert all(np.allclose(begun[name], taken[name], atol=1e-6) for name in taken)
    other = values("megalodon", model={"ffn_hidden_dim": 64})
    config.write_text(yaml.safe_dump(other), "utf-8")
    done = chomp("train", config, "--run-dir", tmp_path / "other", "--init-from", out)
    assert (done.code, "train.init_from" in done.err, "ffn" in done.err) == (2, True, True)
    moved = values("megalodon", data={"tokenizer": {"byte_offset": 4}})
    config.write_text(yaml.safe_dump(moved), "utf-8")
    if kind == "hf":
        done = chomp("train", config, "--dry-run", "--init-from", out)
        assert (done.code, "gives other tokens" in done.err) == (2, True), done.err
