"""`chomp sweep` as a user has it: trained, stopped, killed, gone on with, extended, read."""

import io
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from chomp.config import load_config
from chomp.run.heartbeat import Phase, read_heartbeat
from chomp.sweep.display import LiveDisplay
from chomp.sweep.progress import Progress
from chomp.sweep.record import read_record
from chomp.system.console import SILENT

# The single runs that a sweep's are compared with; its own are in processes that it starts.
pytestmark = pytest.mark.usefixtures("share_programs")

ARMS = "optim.lr=1e-3,3e-2,1e30"
SIZES = {"train": {"steps": 8, "eval_every": 4}, "checkpoint": {"save_every": 100}}
TIMES = ("_s", "_sec", "_gb", "mfu", "share", "matmul_bound")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, values: Callable[..., Any]) -> Path:
    path = tmp_path_factory.mktemp("config") / "small.yaml"
    # Without a compile cache, which would hide that a program isn't shared.
    sections = {**SIZES, "runtime": {"compile_cache": None}}
    path.write_text(yaml.safe_dump(values("dummy", **sections)), "utf-8")
    return path


@pytest.fixture(scope="module")
def swept(chomp: Any, config: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A sweep of two good rates and a bad one, with two seeds, and its results."""
    folder = tmp_path_factory.mktemp("sweep") / "rates"
    done = chomp("sweep", config, ARMS, "--seeds", 2, "--json", "--dir", folder)
    assert done.code == 1, done.err
    assert "[6/6]" in done.err
    return folder, json.loads(done.out)


def learnt(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What is the same in the rows of two equal runs."""
    return [{key: value for key, value in row.items() if not key.endswith(TIMES)} for row in rows]


def test_arms_are_compared_with_the_first(swept: tuple[Path, Any]):
    _, found = swept
    slow, good, bad = found["arms"]
    assert found["baseline"] == slow["name"] == "optim.lr=1e-3" and not found["complete"]
    assert good["pairs"] == good["finished"] == 2 and good["diff"] < 0
    scores = [[seed["bits_per_byte"] for seed in arm["seeds"]] for arm in (slow, good)]
    one, two = (theirs - ours for ours, theirs in zip(*scores, strict=True))
    assert good["diff"] == pytest.approx((one + two) / 2)
    # With one degree of freedom: 12.7062 times the standard error, which is half of the range.
    assert good["ci_high"] - good["diff"] == pytest.approx(12.7062 * abs(one - two) / 2, rel=1e-4)
    assert good["p"] == good["p_holm"] > 0.0
    assert good["seconds"] > 8 * good["step_seconds"] > 0
    assert bad["finished"] == 0 and bad["mean"] is bad["diff"] is None


def test_an_arm_that_diverges_is_an_arm_with_a_reason(swept: tuple[Path, Any]):
    _, found = swept
    seeds = found["arms"][2]["seeds"]
    assert [seed["state"] for seed in seeds] == ["diverged"] * 2
    assert all("not finite" in seed["reason"] for seed in seeds)


def test_all_runs_share_one_program(swept: tuple[Path, Any]):
    _, found = swept
    compiled = [seed["compiled"] for arm in found["arms"] for seed in arm["seeds"]]
    assert compiled == [True, *[False] * 5] and found["programs_compiled"] == 1


def test_seeds_move_weights_and_order_but_not_what_is_evaluated(
    swept: tuple[Path, Any], read_rows: Any
):
    folder, _ = swept
    one, two = (read_rows(folder / f"optim.lr=3e-2_seed{seed}") for seed in (0, 1))
    assert one[0]["batch_hash"] != two[0]["batch_hash"] and one[0]["loss"] != two[0]["loss"]
    assert one[-1]["eval_targets"] == two[-1]["eval_targets"]
    other = read_rows(folder / "optim.lr=1e-3_seed1")
    assert other[0]["batch_hash"] == two[0]["batch_hash"] and other[0]["loss"] == two[0]["loss"]


def test_a_run_of_a_sweep_is_a_run_like_any_other(
    swept: tuple[Path, Any], chomp: Any, config: Path, read_rows: Any, tmp_path: Path
):
    folder, _ = swept
    run = folder / "optim.lr=3e-2_seed1"
    words = ["optim.lr=3e-2", "train.seed=1", "data.seed=1", "data.eval_seed=0"]
    words = [part for word in words for part in ("-o", word)]
    assert chomp("train", config, *words, "--run-dir", tmp_path / "alone").code == 0
    assert learnt(read_rows(run)) == learnt(read_rows(tmp_path / "alone"))
    assert chomp("compare", run, tmp_path / "alone").code == 0
    assert chomp("checkpoints", "verify", run).code == 0


def test_the_same_command_only_prints_what_is_there(
    swept: tuple[Path, Any], chomp: Any, config: Path
):
    folder, found = swept
    again = chomp("sweep", config, ARMS, "--seeds", 2, "--json", "--dir", folder)
    assert again.code == 1 and json.loads(again.out) == found and not again.err
    shown = chomp(
        "sweep", config, ARMS, "--seeds", 2, "--dir", folder, "--baseline", ARMS[:8] + "=3e-2"
    )
    assert "optim.lr=1e-3" in shown.out and "diverged   optim.lr=1e30, 2 of 2 seeds" in shown.out


def test_the_live_table_shows_what_a_terminal_has_room_for(swept: tuple[Path, Any], config: Path):
    folder, _ = swept
    record = read_record(folder)
    assert record is not None
    progress = Progress(record, folder, dict.fromkeys(record.arms, load_config(config)))
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, width=100, height=10)
    with LiveDisplay(record, 1, SILENT, terminal) as display:
        display.tick(progress)
    shown = screen.getvalue()
    assert "optim.lr=3e-2" in shown and "finished" in shown and "8/8" in shown
    assert "... and 2 more" in shown and "6 of 6 runs done" in shown


def test_another_sweep_in_the_folder_is_refused(swept: tuple[Path, Any], chomp: Any, config: Path):
    folder, _ = swept
    given = ["sweep", config, "--dir", folder]
    done = chomp(*given, "optim.lr=1e-3,3e-2", "train.steps=9")
    assert done.code == 2
    for line in (
        "train.steps: was 8, now 9",
        "arms: without optim.lr=1e30",
        "--seeds: was 2, now 1",
    ):
        assert line in done.err


def test_every_wrong_arm_is_said_before_one_is_trained(chomp: Any, config: Path, tmp_path: Path):
    folder = tmp_path / "sweep"
    done = chomp("sweep", config, "optim.lr=1e-3,-1", "train.seq_len=64,65", "--dir", folder)
    assert done.code == 2 and not folder.exists()
    assert [line.partition(": must")[0] for line in done.err.splitlines()] == [
        "error: optim.lr=1e-3,train.seq_len=65: train.seq_len",
        "error: optim.lr=-1,train.seq_len=64: optim.lr",
        "error: optim.lr=-1,train.seq_len=65: optim.lr",
        "error: optim.lr=-1,train.seq_len=65: train.seq_len",
    ]
    done = chomp("sweep", config, "train.eval_every=0", "data.seed=1,2", "--dir", folder)
    assert "train.eval_every: must be above 0" in done.err and "data.seed: --seeds" in done.err
    files = f"data.files=[{tmp_path / 'gone.txt'}],[{config}]"
    done = chomp("sweep", config, files, "--dir", folder)
    assert done.code == 2 and "gone.txt]: data.files: no file matches" in done.err
    assert not (folder / "sweep.json").exists()


def wait_for(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError("it never came")


LONG = ("optim.lr=1e-3,3e-2", "train.steps=400", "train.eval_every=400")


def test_stopped_killed_extended_and_all_is_as_if_nothing_had_been(
    start_chomp: Any, chomp: Any, config: Path, read_rows: Any, tmp_path: Path
):
    """SIGINT in the first run, SIGKILL of the worker in the second, then one seed more."""
    folder = tmp_path / "sweep"
    first, second = (
        folder / f"{name}_seed0" for name in LONG[0].replace(",", ",optim.lr=").split(",")
    )

    def worker_in(run: Path) -> int | None:
        reading = read_heartbeat(run / "heartbeat")
        training = reading and reading.phase is Phase.TRAINING and reading.finished > 5
        return reading.pid if reading and training else None

    given = ("sweep", config, *LONG, "--dir", folder)
    process = start_chomp(*given)
    wait_for(lambda: worker_in(first))
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "stopped    0 of 2 runs are done, and all is saved; the same command goes on" in out
    assert 5 < read_rows(first)[-1]["step"] < 400

    process = start_chomp(*given)
    os.kill(wait_for(lambda: worker_in(second)), signal.SIGKILL)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert "optim.lr=3e-2, 1 of 1 seeds: its process was killed by SIGKILL" in out
    assert "finished after step 400 of 400" in out

    done = chomp(*given, "--seeds", 2, "--jobs", 2, "--json")
    assert done.code == 0, done.err
    assert all(
        seed["steps"] == 400 for arm in json.loads(done.out)["arms"] for seed in arm["seeds"]
    )
    for run, rate in (first, "1e-3"), (second, "3e-2"):
        straight = tmp_path / rate
        words = [f"optim.lr={rate}", *LONG[1:], "data.eval_seed=0"]
        words = [part for word in words for part in ("-o", word)]
        assert chomp("train", config, *words, "--run-dir", straight).code == 0
        assert learnt(read_rows(run)) == learnt(read_rows(straight))


def test_a_sweep_that_is_killed_leaves_no_process_and_a_saved_run(
    start_chomp: Any, config: Path, tmp_path: Path
):
    run = tmp_path / "sweep" / "default_seed0"
    process = start_chomp("sweep", config, "train.steps=100000", "--dir", run.parent)
    reading = wait_for(lambda: (r := read_heartbeat(run / "heartbeat")) and r.finished > 5 and r)
    process.kill()
    process.wait()
    wait_for(lambda: not Path(f"/proc/{reading.pid}").exists())
    record = json.loads((run / "run.json").read_text())
    assert record["starts"][0]["ended"] == "stopped"
    assert list((run / "checkpoints").glob("[0-9]*"))


def test_halving_leaves_the_worse_half_behind(chomp: Any, config: Path, tmp_path: Path):
    given = ("sweep", config, "optim.lr=1e-4,1e-3,3e-2,1e-1", "train.eval_every=2", "--halving")
    done = chomp(*given, "--dir", tmp_path / "sweep", "--json")
    assert done.code == 0, done.err
    arms = {arm["name"]: arm["seeds"][0] for arm in json.loads(done.out)["arms"]}
    assert [(seed["state"], seed["steps"]) for seed in arms.values()] == [
        ("finished", 8),  # the baseline
        ("dropped", 2),
        ("dropped", 4),
        ("finished", 8),
    ]
    assert arms["optim.lr=1e-1"]["starts"] == 3
    done = chomp(*given, "train.steps=4", "train.eval_every=3", "--dir", tmp_path / "other")
    assert done.code == 2 and "train.eval_every: is given twice" in done.err


def test_a_budget_of_seconds_is_measured(start_chomp: Any, config: Path, tmp_path: Path):
    """The run itself is stopped: how long it takes is a matter of the machine."""
    folder = tmp_path / "sweep"
    run = folder / "default_seed0"
    process = start_chomp("sweep", config, "--budget", "2000s", "--dir", folder)
    wait_for(lambda: (r := read_heartbeat(run / "heartbeat")) and r.finished > 5, 120)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "calibrated default: " in out
    record = read_record(folder)
    assert record is not None
    steps = record.steps("default")
    resolved = json.loads((run / "config_resolved.json").read_text())
    assert steps == resolved["train"]["steps"]
    assert steps is not None and 1_000 < steps < 2_000_000
