"""A run folder of an earlier version, kept as it was, goes on as that version would have."""

import json
import platform
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


def test_it_goes_on_from_its_checkpoint(start_chomp: Any, run: Path):
    """Muon, bin packing, evaluation and samples; stopped after step 3 of 6."""
    then = rows_of(run / "metrics.jsonl", first=4)
    ledger = rows_of(run / "ledger.jsonl")
    samples = (run / "samples.jsonl").read_text("utf-8")
    flags = {"XLA_FLAGS": "--xla_backend_optimization_level=0"}  # as it was made
    resumed = start_chomp("train", "--run-dir", run, "--resume", "3", env=flags)
    out, err = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, (out, err)
    now = rows_of(run / "metrics.jsonl", first=4)
    assert [row["step"] for row in now] == [4, 5, 6]
    assert [[row[key] for key in SAME] for row in now] == [
        [row[key] for key in SAME] for row in then
    ]
    assert rows_of(run / "ledger.jsonl") == ledger
    # Defaults that were none then.
    config = json.loads((run / "config_resolved.json").read_text("utf-8"))
    assert config["data"]["shuffle_buffer_bytes"] is None
    # Its rates are constants of its program, and a resume of this resume has to know.
    saved = json.loads((run / "checkpoints" / "6" / "run.json").read_text("utf-8"))
    assert saved["meta"]["rates"] is None
    # To the last bit on the processor that it was made on; others sum in another order.
    same_processor = platform.machine() == "x86_64" and processor() == PROCESSOR
    for row, before in zip(now, then, strict=True):
        for key in set(COMPUTED) & set(before):
            expected = before[key] if same_processor else pytest.approx(before[key], rel=1e-4)
            assert row[key] == expected, (row["step"], key)
    if same_processor:
        assert (run / "samples.jsonl").read_text("utf-8") == samples


PROCESSOR = "Intel(R) Xeon(R) Processor, 2 threads"


def processor() -> str:
    """Name of this machine's processor, and how many it has."""
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} threads" if names else "unknown"
