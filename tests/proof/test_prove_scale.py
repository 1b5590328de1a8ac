"""Real proofs that a run is the same on other devices: of chomp, and of a broken one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chomp.proof.layouts import SPREAD, Layout

SABOTAGE = Path(__file__).parent / "sabotage"


@pytest.fixture
def tiny(config_file: Callable[..., Path]) -> Path:
    train = {"eval_every": 2, "batch_size": 8, "seq_len": 64}
    return config_file("dummy", train=train, data={"max_eval_samples": 10})


@pytest.mark.parametrize(
    "spread",
    [
        # A process takes seconds to start: one layout of each kind.
        (Layout(1, 8, fsdp=2), Layout(1, 4, fsdp=2, gather="layer"), Layout(2, 2, fsdp=2)),
        pytest.param(SPREAD, marks=pytest.mark.slow),
    ],
    ids=["one of each kind", "all"],
)
def test_devices_and_processes_agree(
    tiny: Path,
    chomp: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spread: tuple[Layout, ...],
):
    assert set(spread) <= set(SPREAD)
    monkeypatch.setattr("chomp.proof.prove_scale.SPREAD", spread)
    done = chomp("prove-scale", tiny, "--steps", 6, "--work-dir", tmp_path / "work")
    assert done.code == 0, done.out
    first, *layouts, proved, kept = done.out.splitlines()
    assert first == "reference   6 steps on one device"
    assert len(layouts) == len(spread) + 1
    assert all(line.startswith("agrees ") and "same batches" in line for line in layouts)
    for layout, line in zip(spread, layouts, strict=False):
        assert f" {layout}: " in line
    assert "2 steps on 1 process, data 2 x fsdp 2, then 2 steps on 1 process" in layouts[-1]
    assert proved == "proved      the same run on all of them"
    assert kept == f"runs        kept in {tmp_path / 'work'}"


@pytest.mark.slow
def test_a_batch_lost_at_a_resume_is_noticed(
    tiny: Path, chomp: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CHOMP_SABOTAGE", "skip batch")
    monkeypatch.setenv("PYTHONPATH", str(SABOTAGE), prepend=":")
    done = chomp("prove-scale", tiny, "--steps", 6, "--work-dir", tmp_path / "work")
    assert done.code == 1, done.out
    assert "DIFFERS     2 steps on" in done.out and "OTHER BATCHES in" in done.out
    assert "FAILED      not the same run" in done.out


def test_rows_that_eight_devices_cannot_share(config_file: Callable[..., Path], chomp: Any):
    done = chomp("prove-scale", config_file("dummy", train={"batch_size": 4}))
    assert done.code == 2
    assert "train.batch_size: must be a multiple of 8" in done.err
