"""`chomp train` in two processes with two devices each, against one process with one device."""

import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import gather


def test_a_run_of_two_processes_stops_and_goes_on_in_one(
    start: Callable[..., subprocess.Popen[str]],
    free_port: int,
    config_file: Callable[..., Path],
    chomp: Callable,
    read_rows: Callable,
    tmp_path: Path,
) -> None:
    """A signal to the second stops both; the checkpoint is theirs; the batches are those of one.

    Both begin with the weights of the same step, though the second sees a newer one.
    """
    config = config_file(
        train={"steps": 100_000, "batch_size": 4, "eval_every": 5},
        data={"lanes": 2, "repeat": True},
        parallel={"fsdp": 2},
        checkpoint={"save_every": 4},
        logging={"console_use_rich": False},
    )
    source = tmp_path / "0" / "source"
    few = ("-o", "train.steps=8", "-o", "parallel.fsdp=1")
    assert chomp("train", config, "--run-dir", source, *few).code == 0
    shutil.copytree(source, tmp_path / "1" / "source")
    shutil.rmtree(source / "checkpoints" / "8")
    run = tmp_path / "run"
    options = ("--coordinator", f"127.0.0.1:{free_port}", "--processes", 2, "--run-dir", run)
    options += ("--init-from", "/proc/self/cwd/source")  # to each what is in its own folder
    processes = [
        start("-m", "chomp", "train", config, *options, "--process-id", number, devices=2, cwd=cwd)
        for number, cwd in enumerate((tmp_path / "0", tmp_path / "1"))
    ]
    deadline = time.time() + 100
    while not (run / "checkpoints" / "8").exists():
        assert time.time() < deadline and processes[0].poll() is None, gather(processes)
        time.sleep(0.05)
    processes[1].send_signal(signal.SIGTERM)
    first, second = gather(processes)
    assert (first.code, second.code) == (128 + 15, 128 + 15), (first, second)
    assert "stopped    after step" in first.out
    assert f"weights    of {source} after step 4" in first.out
    assert "step" not in second.out  # the first alone has the console

    assert chomp("checkpoints", "verify", run).code == 0
    reached = read_rows(run)[-1]["step"]
    more = ("-o", f"train.steps={reached + 4}", "-o", "parallel.fsdp=1")
    done = chomp("train", "--run-dir", run, "--resume", "latest", *more)
    assert done.code == 0, done.err

    alone = tmp_path / "alone"
    done = chomp("train", config, "--run-dir", alone, "--init-from", f"{source}:4", *more)
    assert done.code == 0, done.err
    ours, theirs = ({row["step"]: row for row in read_rows(folder)} for folder in (run, alone))
    assert ours.keys() == theirs.keys()
    for step, row in ours.items():
        other = theirs[step]
        assert row["batch_hash"] == other["batch_hash"]
        assert row["tokens_seen"] == other["tokens_seen"]
        assert ("eval_loss" in row) == ("eval_loss" in other)
        for name in {"loss", "grad_norm", "eval_loss"} & row.keys():
            assert row[name] == pytest.approx(other[name], rel=1e-4), (step, name)
