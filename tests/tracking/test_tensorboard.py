"""Event files, read back by TensorBoard's own reader."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from chomp.tracking import TrackedRun
from chomp.tracking.tensorboard_tracker import TensorBoardTracker

pytestmark = pytest.mark.usefixtures("share_programs")

LOGGING = {"trackers": ["jsonl", "tensorboard"]}


def read(run: Path) -> EventAccumulator:
    """Read the events of a run as TensorBoard does, all of them."""
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0, "tensors": 0})
    return events.Reload()


def scalars(run: Path) -> dict[int, dict[str, Any]]:
    """Return what TensorBoard has by step; each value stands there once."""
    events, rows = read(run), {}
    for tag in events.Tags()["scalars"]:
        for event in events.Scalars(tag):
            row = rows.setdefault(event.step, {})
            assert tag not in row, (tag, event.step)
            row[tag] = None if math.isnan(event.value) else event.value
    return rows


def texts(run: Path, tag: str) -> dict[int, str]:
    """Return texts by step."""
    return {
        event.step: event.tensor_proto.string_val[0].decode() for event in read(run).Tensors(tag)
    }


def expected(rows: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Return the numbers of rows as floats of 32 bits, by step."""
    return {
        row["step"]: {
            key: None if value is None else float(np.float32(value))
            for key, value in row.items()
            if key != "step" and not isinstance(value, str)
        }
        for row in rows
        if "error" not in row
    }


def test_the_events_are_the_rows_and_samples(
    chomp: Any, config_file: Any, read_rows: Any, tmp_path: Path
):
    run = tmp_path / "run"
    train = {"eval_every": 2, "generate_every": 4}
    config = config_file("megalodon", logging=LOGGING | {"watch": True}, train=train)
    done = chomp("train", config, "--run-dir", run)
    assert done.code == 0, done.err
    rows = read_rows(run)
    assert scalars(run) == expected(rows)
    assert {"eval_loss", "grad_norm/layers.0.attn", "tokens_seen"} <= set(scalars(run)[4])
    [line] = (run / "samples.jsonl").read_text().splitlines()
    sample = json.loads(line)
    [(step, text)] = texts(run, "sample").items()
    assert step == sample["step"] == 4
    shown = [line[4:] for line in text.splitlines() if line.startswith("    ")]
    assert shown == sample["prompt"].splitlines() + sample["continuation"].splitlines()
    [config_shown] = texts(run, "config").values()
    assert json.loads(config_shown)["train"]["generate_every"] == 4


def test_a_resume_from_an_earlier_step_leaves_each_row_once(
    chomp: Any, config_file: Any, read_rows: Any, tmp_path: Path
):
    """The rows after the checkpoint have been written; they are made again, with another rate."""
    run, save = tmp_path / "run", {"save_every": 2, "max_to_keep": 5}
    assert chomp("train", config_file(logging=LOGGING, checkpoint=save), "--run-dir", run).code == 0
    before = scalars(run)
    changed = ("-o", "optim.lr=1e-2", "--allow-change", "optim.lr", "-o", "train.steps=6")
    done = chomp("train", "--run-dir", run, "--resume", "2", *changed)
    assert done.code == 0, done.err
    after = scalars(run)
    assert after == expected(read_rows(run))
    assert sorted(after) == [1, 2, 3, 4, 5, 6]
    assert after[2] == before[2] and after[4]["loss"] != before[4]["loss"]


def test_a_rewind_takes_back_what_it_makes_anew(
    chomp: Any, config_file: Any, read_rows: Any, tmp_path: Path
):
    """Two rewinds to step 1, then the end: what each made of step 2 is not a number."""
    config = config_file(
        logging=LOGGING,
        train={"steps": 9, "on_divergence": "rewind", "divergence_limit": 2},
        optim={"lr": 1e30, "warmup_steps": 0},
        checkpoint={"save_every": 1},
    )
    run = tmp_path / "run"
    done = chomp("train", config, "--run-dir", run)
    assert done.code == 1
    assert done.out.count("going back to step 1") == 2
    assert len(list((run / "tensorboard").iterdir())) == 3
    *rows, error = read_rows(run)
    assert scalars(run) == expected(rows)
    assert [row["step"] for row in rows] == [1, 2] and rows[1]["loss"] is None
    assert texts(run, "error") == {error["step"]: f"DivergedError: {error['reason']}"}


def test_switched_on_at_a_resume_it_has_the_rows_of_before(
    chomp: Any, config_file: Any, read_rows: Any, tmp_path: Path
):
    run = tmp_path / "run"
    assert chomp("train", config_file(), "--run-dir", run).code == 0
    more = ("-o", "logging.trackers=[tensorboard]", "-o", "train.steps=6")
    done = chomp("train", "--run-dir", run, "--resume", "latest", *more)
    assert done.code == 0, done.err
    assert scalars(run) == expected(read_rows(run))


def test_a_full_disk_loses_nothing(tmp_path: Path):
    """/dev/full has room for nothing; with room again, the events follow."""
    tracker = TensorBoardTracker(TrackedRun(tmp_path, {}, 0, tmp_path / "metrics.jsonl"))
    kept = tracker._file
    with open("/dev/full", "wb", buffering=0) as tracker._file:
        for step in (1, 2):
            with pytest.raises(OSError, match="No space left"):
                tracker.log({"step": step, "loss": 0.5 * step})
    tracker._file = kept
    tracker.log({"step": 3, "loss": 1.5})
    tracker.close()
    assert scalars(tmp_path) == {step: {"loss": 0.5 * step} for step in (1, 2, 3)}


def test_a_missing_package_is_a_line_beside_what_else_is_missing(config_file: Any, tmp_path: Path):
    script = (
        "import importlib.util as u, sys\nfind = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name in ('tensorboard', 'mlflow') "
        "else find(name, *a)\n"
        "from chomp.cli import main\nmain(sys.argv[1:])"
    )
    config = config_file(logging={"trackers": ["tensorboard", "mlflow"]})
    command = [sys.executable, "-c", script, "train", config, "--run-dir", tmp_path / "run"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "".join(
        f"error: logging.trackers: {name} needs the package {name}: "
        f"run pip install 'chomp[{name}]'\n"
        for name in ("tensorboard", "mlflow")
    )
    assert not (tmp_path / "run").exists()
