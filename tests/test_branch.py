"""Runs that begin from other runs: with everything (`branch`), or with the weights alone."""

import filecmp
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from chomp.checkpoint.arrays import PARAMS, read_numpy
from chomp.commands.branch import BranchRequest, branch_run
from chomp.run.lineage import descendants
from chomp.run.record import Parent, RunRecord
from chomp.system.console import Console

pytestmark = pytest.mark.usefixtures("share_programs")

Values = dict[str, Any]
TIMES = ("step_time_s", "tokens_per_sec", "data_wait_share", "mfu")
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


def test_a_run_that_is_training_is_branched(
    chomp: Any, source: Path, tmp_path: Path, no_lines: Console
):
    """It holds its lock, has its files open, and saves in the background meanwhile."""
    from chomp import Callback, train

    first, new = tmp_path / "first", tmp_path / "new"

    class BranchNow(Callback):
        def __call__(self, info: Any) -> None:
            if info.progress.step == 5:
                branch_run(BranchRequest(first, "2", new), no_lines)

    assert train(source.parent / "config.yaml", run_dir=first, callbacks=[BranchNow()]) == 0
    done = chomp("train", "--run-dir", new, "--resume", "latest")
    assert (done.code, "after step 2" in done.out) == (0, True), done.err
    for run in (first, new):
        assert rows(run) == rows(source)
        assert same(params(run, STEPS), params(source, STEPS))
        assert chomp("checkpoints", "verify", run).code == 0


@pytest.mark.parametrize("places", ["inside", "outside"])
def test_what_its_parent_writes_elsewhere_is_its_own(
    chomp: Any, source: Path, tmp_path: Path, places: str
):
    first, new, base = tmp_path / "first", tmp_path / "new", "" if places == "inside" else tmp_path
    moved = (
        *("-o", f"checkpoint.root_dir={Path(base, 'saved')}"),
        *("-o", f"logging.metrics_file={Path(base, 'rows', 'm.jsonl')}"),
    )
    done = chomp("train", source.parent / "config.yaml", "--run-dir", first, *moved)
    assert done.code == 0, done.err
    before = contents(tmp_path)
    made = chomp("branch", f"{first}:4", new)
    assert made.code == 0, made.err
    assert ("checkpoint.root_dir: was" in made.out) == (places == "outside")
    done = chomp("train", "--run-dir", new, "--resume", "latest")
    assert (done.code, "2 steps" in made.out, "warning" in done.out) == (0, False, False), done.out
    saved = new / ("saved" if places == "inside" else "checkpoints")
    assert same(read_numpy(saved / str(STEPS), PARAMS), params(source, STEPS))
    after = contents(tmp_path)
    assert {path: after[path] for path in before} == before
    # Without its checkpoint it would be another run, from fresh parameters.
    shutil.rmtree(saved)
    done = chomp("train", "--run-dir", new, "--resume", "latest")
    assert (done.code, f"chomp branch {first}:4 NEW" in done.err) == (2, True)


@pytest.mark.parametrize("given", [".", "link"])
def test_an_empty_folder_is_taken(
    chomp: Any, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
):
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    monkeypatch.chdir(tmp_path / "empty" if given == "." else tmp_path)
    made = chomp("branch", source, given)
    assert made.code == 0, made.err
    assert (tmp_path / "empty" / "run.json").is_file()
    assert (tmp_path / "link").is_symlink()


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


def test_a_run_that_gets_worse_says_where_it_was_best(chomp: Any, source: Path, tmp_path: Path):
    (best,) = (row for row in rows(source) if row["step"] == STEPS)
    words = ("-o", "train.steps=9", "-o", "optim.lr=5")
    assert chomp("branch", source, tmp_path / "new", *words).code == 0
    done = chomp("train", "--run-dir", tmp_path / "new", "--resume", "latest")
    assert done.code == 0, done.err
    assert rows(tmp_path / "new")[-1]["eval_loss"] > 2 * best["eval_loss"]
    assert (
        f"lowest     {best['eval_loss']:.4f} nats per token, "
        f"{best['eval_bits_per_byte']:.4f} bits per byte (after step {STEPS})\n"
    ) in done.out


def test_the_rate_rises_once_more_where_a_branch_begins(chomp: Any, source: Path, tmp_path: Path):
    longer = ("-o", "train.steps=9", "-o", "optim.decay_steps=null")
    plain, new = tmp_path / "plain", tmp_path / "new"
    assert chomp("branch", f"{source}:4", plain, *longer).code == 0
    made = chomp("branch", f"{source}:4", new, *longer, "-o", "optim.rewarm_steps=3")
    assert "changed    optim.rewarm_from: was None, now 4" in made.out
    for run in (plain, new):
        done = chomp("train", "--run-dir", run, "--resume", "latest")
        assert done.code == 0, done.err
        rates = [row["lr"] for row in rows(run)]
        (line,) = (line for line in done.out.splitlines() if line.startswith("rate "))
        top = f"{max(rates[4:]):.2e} at step {rates.index(max(rates[4:])) + 1}, "
        was = 3e-3 * (1 + math.cos(math.pi / 37)) / 2
        assert line == (
            f"rate       {rates[4]:.2e} at step 5 rather than {was:.2e}, "
            f"{top if run == new else ''}{rates[-1]:.2e} at the last step, 9"
        )
    whole, risen = ([row["lr"] for row in rows(run)] for run in (plain, new))
    assert risen[4:6] == pytest.approx([whole[4] / 3, whole[5] * 2 / 3])
    assert risen[:4] + risen[6:] == whole[:4] + whole[6:]
    # It is in the configuration from there on, so that a resume in the middle of it is exact.
    shutil.rmtree(new / "checkpoints" / "9")
    shutil.rmtree(new / "checkpoints" / "8")
    straight = rows(new)
    done = chomp("train", "--run-dir", new, "--resume", "latest")
    assert (done.code, "after step 6" in done.out, "rate " in done.out) == (0, True, False)
    assert rows(new) == straight


def test_the_rate_rises_once_more_in_a_run_itself(chomp: Any, source: Path, tmp_path: Path):
    shutil.copytree(source, tmp_path / "run")
    resume = ("train", "--run-dir", tmp_path / "run", "--resume", "latest", "-o", "train.steps=9")
    change = ("-o", "optim.lr=1e-3", "-o", "optim.rewarm_steps=2")
    refused = chomp(*resume, *change)
    assert (refused.code, "--allow-change optim.rewarm_steps" in refused.err) == (2, True)
    done = chomp(*resume, *change, "--allow-change", "optim")
    assert (done.code, "rate       " in done.out) == (0, True), done.err
    rates = [row["lr"] for row in rows(tmp_path / "run")]
    # So early the cosine hardly falls.
    assert rates[6:9] == pytest.approx([5e-4, 1e-3, 1e-3], rel=0.05)
    again = chomp(*resume[:-1], "train.steps=10")
    assert (again.code, "after step 9" in again.out) == (0, True), again.err
    words = ("branch", tmp_path / "run", tmp_path / "new", "-o", "optim.rewarm_steps=2")
    refused = chomp(*words)
    assert (refused.code, "give -o optim.rewarm_from=10 as well" in refused.err) == (2, True)
    assert chomp(*words, "-o", "optim.rewarm_from=10").code == 0


def test_a_new_run_has_nothing_to_rise_from(chomp: Any, source: Path, tmp_path: Path):
    for more in (("--run-dir", tmp_path / "new"), ("--dry-run",)):
        done = chomp("train", source.parent / "config.yaml", *more, "-o", "optim.rewarm_steps=3")
        assert (done.code, "a new one has optim.warmup_steps" in done.err) == (2, True), done.err


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
    rate = rows(source)
    assert f"rate       {rate[4]['lr']:.2e} at step 5, {rate[5]['lr']:.2e} at the last" in done.out
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
    assert os.listdir(tmp_path) == []
    assert chomp("branch", source, tmp_path / "new").code == 0


def test_what_a_kill_leaves_is_no_run_and_goes_at_the_next_branch(
    chomp: Any, source: Path, tmp_path: Path
):
    shutil.copytree(source, tmp_path / "first")
    code = (
        "import os, shutil; from pathlib import Path\n"
        "Path.rename = lambda *_: os.kill(os.getpid(), 9)\n"
        "from chomp.cli import main; main()\n"
    )
    words = ("branch", str(tmp_path / "first"), str(tmp_path / "new"))
    assert subprocess.run([sys.executable, "-c", code, *words]).returncode == -9
    left = [path for path in tmp_path.iterdir() if path.name != "first"]
    assert len(left) == 1 and (left[0] / "run.json").is_file()
    assert "began from it" not in chomp("status", tmp_path / "first").out
    assert chomp("branch", *words[1:]).code == 0
    assert sorted(os.listdir(tmp_path)) == ["first", "new"]


def test_a_checkpoint_that_goes_while_it_is_copied_is_named(
    chomp: Any, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    first = tmp_path / "first"
    shutil.copytree(source, first)
    copy = shutil.copytree

    def pruned(there: Path, here: Path) -> None:
        there.rename(there.with_name("unfinished-x"))
        copy(there, here)

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copytree", pruned)
        done = chomp("branch", f"{first}:2", tmp_path / "new")
    assert (done.code, "was deleted while it was copied" in done.err) == (2, True), done.err
    assert os.listdir(tmp_path) == ["first"]


def test_planted_records_of_branches_end(chomp: Any, source: Path, tmp_path: Path):
    runs = [tmp_path / name for name in ("a", "b")]
    for run, other in zip(runs, reversed(runs), strict=True):
        shutil.copytree(source, run)
        record = json.loads((run / "run.json").read_text())
        parent = {"run": other.name, "folder": str(other), "step": 9, "kind": "branch"}
        (run / "run.json").write_text(json.dumps(record | {"run": run.name, "parent": parent}))
    done = chomp("trace", runs[0], "--step", 1)
    assert (done.code, "branches of each other" in done.err) == (2, True), done.err
    assert chomp("status", runs[0]).code == 0
    for name in ("run.json", "ledger.jsonl"):  # a pipe would be waited for
        (runs[1] / name).unlink()
        os.mkfifo(runs[1] / name)
        done = chomp("trace", runs[0], "--step", 1)
        assert done.code == 2, done.err
        assert chomp("status", runs[0]).code == 0


def test_generations_without_end_are_shown_as_far_as_they_can_be(
    chomp: Any, source: Path, tmp_path: Path
):
    shutil.copytree(source, tmp_path / "first")
    run = json.loads((source / "run.json").read_text())["run"]
    for generation in range(400):
        folder = tmp_path / f"{generation}"
        folder.mkdir()
        record = RunRecord(f"run-{generation}", parent=Parent(run, "", 1, "branch"))
        (folder / "run.json").write_text(record.to_json())
        run = record.run
    assert f"{tmp_path / '99'}  after step 1" in chomp("status", tmp_path / "first").out
    assert chomp("status", tmp_path / "first", "--json").code == 0


def test_copies_of_runs_are_shown_once(source: Path, tmp_path: Path):
    # 12 generations, and 4 copies of each: all ways through them would be millions.
    for generation in range(12):
        folder = tmp_path / f"{generation}-0"
        folder.mkdir()
        parent = Parent(str(generation - 1), "", 1, "branch") if generation else None
        (folder / "run.json").write_text(RunRecord(str(generation), parent=parent).to_json())
        for copy in range(1, 4):
            shutil.copytree(folder, tmp_path / f"{generation}-{copy}")
    found = descendants(tmp_path / "0-0", "0")
    assert len(found) == 4
    assert str(found).count("Descendant(") == 4 * 11


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
        (
            ("{source}", "{tmp}/new", "-o", "logging.metrics_file={tmp}/mine"),
            "inside of the branch",
        ),
        (("{source}", "{tmp}/new", "-o", "checkpoint.root_dir=../mine"), "inside of the branch"),
        (
            ("{source}", "{tmp}/new", "-o", "logging.metrics_file=run.json"),
            "apart from the run's own",
        ),
        (("{source}", "{source}/new"), "is inside of the run"),
        (("{source}", "{tmp}/" + "n" * 300), "can't be made a run folder"),
    ],
)
def test_what_can_not_be_branched_is_one_line_and_leaves_nothing(
    chomp: Any, source: Path, tmp_path: Path, args: tuple, said: str
):
    (tmp_path / "mine").write_text("mine")
    done = chomp("branch", *(str(arg).format(source=source, tmp=tmp_path) for arg in args))
    assert (done.code, said in done.err) == (2, True), done.err
    assert os.listdir(tmp_path) == ["mine"]
    assert (tmp_path / "mine").read_text() == "mine"


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


def test_the_newest_weights_stay_those_of_the_first_start(
    chomp: Any, source: Path, tmp_path: Path, values: Any, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values("dummy", train={"steps": 4})))
    shutil.copytree(source, tmp_path / "source")
    for step in (4, 6):
        (tmp_path / "source" / "checkpoints" / str(step)).rename(tmp_path / str(step))
    monkeypatch.chdir(tmp_path)
    words = ("config.yaml", "--run-dir", "new", "-o", "train.init_from=source")
    done = chomp("train", *words)
    assert (done.code, "after step 2" in done.out) == (0, True), done.err
    shutil.rmtree(tmp_path / "new" / "checkpoints")
    (tmp_path / "4").rename(tmp_path / "source" / "checkpoints" / "4")
    # Nor does another folder's `source` take their place.
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    done = chomp("train", "--run-dir", "../new", "--resume", "latest")
    assert f"weights    of {tmp_path / 'source'} after step 2" in done.out, done.err
    shutil.rmtree(tmp_path / "new" / "checkpoints")
    shutil.rmtree(tmp_path / "source")
    done = chomp("train", "--run-dir", "../new", "--resume", "latest")
    assert (done.code, f"{tmp_path / 'source'} holds no run" in done.err) == (2, True)


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
    done = chomp("train", config, "--run-dir", tmp_path / "n", "--init-from", "~nobody-here/run")
    assert (done.code, "no such user" in done.err) == (2, True), done.err
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


def test_somebodys_folder_of_such_a_name_stays(chomp: Any, source: Path, tmp_path: Path):
    mine = tmp_path / ".unfinished-branch-of-my-family-tree"
    mine.mkdir()
    (mine / "people.txt").write_text("mine")
    assert chomp("branch", source, tmp_path / "new").code == 0
    assert [path.name for path in mine.iterdir()] == ["people.txt"]
