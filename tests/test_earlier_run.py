"""A run folder of an earlier version, kept as it was: refused, or gone on with as it was."""

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

KEPT = Path(__file__).with_name("earlier_run")
SAME = ("step", "lr", "lr_muon", "tokens_seen", "docs_seen", "batch_hash", "packing_utilization")
COMPUTED = ("loss", "grad_norm", "eval_loss", "eval_bits_per_byte")


def rows_of(path: Path, first: int = 1) -> list[dict[str, Any]]:
    rows = map(json.loads, path.read_text("utf-8").splitlines())
    return [row for row in rows if row["step"] >= first]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    with tarfile.open(KEPT / "run.tar.xz") as archive:
        archive.extractall(tmp_path / "run", filter="data")
    return tmp_path / "run"


def resume(start_chomp: Any, run: Path, *options: str) -> tuple[int, str, str]:
    flags = {"XLA_FLAGS": "--xla_backend_optimization_level=0"}  # as it was made
    resumed = start_chomp("train", "--run-dir", run, "--resume", "3", *options, env=flags)
    out, err = resumed.communicate(timeout=300)
    return resumed.returncode, out, err


def test_it_is_not_gone_on_with_as_if_steps_still_rounded_alike(start_chomp: Any, run: Path):
    files = {path: path.read_bytes() for path in (run / "checkpoints").rglob("*") if path.is_file()}
    code, _, err = resume(start_chomp, run)
    assert code == 2
    (line,) = (line for line in err.splitlines() if line.startswith("error: "))
    assert "arithmetic: was 1, now 4" in line
    assert line.endswith("--allow-change arithmetic")
    assert {path: path.read_bytes() for path in files} == files


def test_it_goes_on_from_its_checkpoint_where_that_is_wanted(start_chomp: Any, run: Path):
    """Muon, bin packing, evaluation and samples; stopped after step 3 of 6."""
    then = rows_of(run / "metrics.jsonl", first=4)
    ledger = rows_of(run / "ledger.jsonl")
    code, out, err = resume(start_chomp, run, "--allow-change", "arithmetic")
    assert code == 0, (out, err)
    now = rows_of(run / "metrics.jsonl", first=4)
    assert [row["step"] for row in now] == [4, 5, 6]
    assert [[row[key] for key in SAME] for row in now] == [
        [row[key] for key in SAME] for row in then
    ]
    assert rows_of(run / "ledger.jsonl") == ledger
    # Defaults that were none then.
    config = json.loads((run / "config_resolved.json").read_text("utf-8"))
    assert config["data"]["shuffle_buffer_bytes"] is None
    for row, before in zip(now, then, strict=True):
        for key in set(COMPUTED) & set(before):
            assert row[key] == pytest.approx(before[key], rel=1e-4), (row["step"], key)
    saved = json.loads((run / "checkpoints" / "6" / "run.json").read_text("utf-8"))
    assert saved["meta"]["arithmetic"] == 4  # and a resume of this resume needs no permission
