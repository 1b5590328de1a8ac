"""Real proofs: of chomp, and of a chomp that was broken on purpose."""

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from chomp.proof.kills import Kill, Moment
from chomp.proof.trial import Trial

SABOTAGE = Path(__file__).parent / "sabotage"
STEPS = 8


@pytest.fixture
def tiny(config_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A config that starts fast; temporary folders are inside the test's own."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    # Large batches: a step of the dummy model would be over before a signal arrives.
    train = {"eval_every": 2, "batch_size": 16, "seq_len": 512}
    return config_file("dummy", train=train, data={"max_eval_samples": 40})


@pytest.fixture
def mixed(tiny: Path, corpus: Path) -> Path:
    """The same with two sources, whose weights change in the middle."""
    values = yaml.safe_load(tiny.read_text("utf-8"))
    del values["data"]["files"], values["data"]["backend"]
    values["data"] |= {
        "sources": [{"files": [str(corpus)]}, {"builtin": "python-stdlib", "weight": 0.5}],
        "stages": [{"from_step": 5, "weights": {"texts": 0.1, "python-stdlib": 1.0}}],
    }
    tiny.write_text(yaml.safe_dump(values), "utf-8")
    return tiny


def test_a_proof(mixed: Path, chomp: Any, tmp_path: Path):
    work, tiny = tmp_path / "work", mixed
    done = chomp("prove-resume", tiny, "--steps", STEPS, "--kills", 2, "--work-dir", work)
    assert done.code == 0, done.out
    first, straight, *lines = done.out.splitlines()
    assert first == f"proof       chomp prove-resume {tiny} --steps 8 --kills 2 --seed 0"
    assert straight.startswith("straight    8 steps, 4 checkpoints, 4 evaluations, 0 samples, ")
    assert "equal bit for bit" in done.out
    assert lines[-2].startswith("proved      ") and lines[-2].endswith("all came back exactly")
    assert lines[-1] == f"runs        kept in {work}"
    assert (work / "straight").is_dir() and (work / "killed-1").is_dir()
    again = chomp("prove-resume", tiny, "--work-dir", work)
    assert again.code == 2
    assert f"--work-dir {work} isn't empty; give a new folder" in again.err


def sabotaged(how: str, tiny: Path, chomp: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Prove with a chomp that is broken so; return the lines of the differences."""
    monkeypatch.setenv("CHOMP_SABOTAGE", how)
    monkeypatch.setenv("PYTHONPATH", str(SABOTAGE), prepend=":")
    done = chomp("prove-resume", tiny, "--steps", STEPS, "--kills", 1, "--seed", 3)
    assert done.code == 1, done.out
    assert "FAILED " in done.out and "NOT all came back exactly" in done.out
    assert "proved " not in done.out
    (kept,) = [line for line in done.out.splitlines() if line.startswith("runs ")]
    assert (Path(kept.split(" kept in ")[1]) / "straight" / "metrics.jsonl").exists()
    before, after = done.out.split("DIFFERS, first in ")
    resumed = int(before.split("goes on from ")[-1].split()[0].rstrip(";"))
    assert resumed > 0, "the sabotage shows only in what goes on from a checkpoint"
    first, *lines = [line.strip() for line in after.splitlines()]
    assert first == lines[0]
    return [f"after {resumed}", *lines]


class TestSabotage:
    def test_a_skipped_batch(self, tiny: Path, chomp: Any, monkeypatch: pytest.MonkeyPatch):
        resumed, first, *_ = sabotaged("skip batch", tiny, chomp, monkeypatch)
        step = int(resumed.split()[1]) + 1
        assert first.startswith(f"step {step}, ledger.jsonl: hash is ")

    @pytest.mark.slow
    def test_a_flipped_bit(self, tiny: Path, chomp: Any, monkeypatch: pytest.MonkeyPatch):
        found = "\n".join(sabotaged("flip bit", tiny, chomp, monkeypatch))
        assert "final state, " in found and "lm_head" in found

    @pytest.mark.slow
    def test_a_forgotten_optimizer(self, tiny: Path, chomp: Any, monkeypatch: pytest.MonkeyPatch):
        resumed, first, *rest = sabotaged("forget optimizer", tiny, chomp, monkeypatch)
        # The step after the resume computes its loss before it uses the optimizer's state.
        step = int(resumed.split()[1]) + 2
        assert first.startswith(f"step {step}, metrics.jsonl: loss is ")
        assert any(line.startswith("and ") or "final state, " in line for line in rest)

    @pytest.mark.slow
    def test_doubled_rows(self, tiny: Path, chomp: Any, monkeypatch: pytest.MonkeyPatch):
        _, first, *_ = sabotaged("keep rows", tiny, chomp, monkeypatch)
        assert first.endswith(" rows, straight 1")


def test_what_can_not_be_run_is_told(tiny: Path, chomp: Any, tmp_path: Path):
    done = chomp("prove-resume", tiny, "-o", "data.files=[nowhere.txt]")
    assert done.code == 1
    assert "`chomp train` ended with exit code 2 without being killed" in done.err
    assert "nowhere.txt" in done.err and "Traceback" not in done.err
    (kept,) = [line for line in done.out.splitlines() if line.startswith("runs ")]
    assert list(Path(kept.split(" kept in ")[1]).glob("straight.out"))


@pytest.mark.slow
def test_data_that_end_too_soon(tiny: Path, chomp: Any):
    done = chomp("prove-resume", tiny, "-o", "data.repeat=false", "-o", "train.batch_size=4")
    assert done.code == 2
    assert "data.repeat: the documents are used up after " in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", 5], "5 is not in the range x>=8"),
        (["--kills", 0], "0 is not in the range x>=1"),
        (["--seed", "x"], "'x' is not a valid integer"),
        (["--work-dir", ""], "must not be empty"),
        (["-o", "train.stesp=3"], "did you mean 'train.steps'?"),
        (["-o", "train.batch_size=0"], "train.batch_size: must be greater than 0"),
    ],
)
def test_wrong_options_start_nothing(
    tiny: Path, chomp: Any, tmp_path: Path, arguments: list[object], message: str
):
    before = sorted(tmp_path.iterdir())
    done = chomp("prove-resume", tiny, *arguments)
    assert done.code == 2
    assert message in done.err
    assert sorted(tmp_path.iterdir()) == before


def test_a_work_dir_that_is_a_file(tiny: Path, chomp: Any):
    done = chomp("prove-resume", tiny, "--work-dir", tiny)
    assert done.code == 2
    assert f"--work-dir {tiny} can't be used (File exists)" in done.err


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 1), (signal.SIGTERM, 143)])
def test_a_stop_ends_the_run_too(
    tiny: Path, start_chomp: Any, tmp_path: Path, number: signal.Signals, code: int
):
    work = tmp_path / "work"
    steps = ["--steps", 100_000]
    process = start_chomp("prove-resume", tiny, *steps, "--work-dir", work)
    metrics = work / "straight" / "metrics.jsonl"
    while process.poll() is None and not metrics.exists():
        time.sleep(0.05)
    process.send_signal(number)
    out, _ = process.communicate()
    assert process.returncode == code
    assert f"runs        kept in {work}" in out
    left = subprocess.run(["pgrep", "-f", str(work)], capture_output=True, text=True)
    assert left.stdout == ""


@pytest.mark.slow
def test_every_moment(config_file: Callable[..., Path], chomp: Any, tmp_path: Path):
    config = config_file(
        "megalodon",
        train={"eval_every": 8, "generate_every": 8, "batch_size": 4},
        data={"packing_mode": "bin", "packing_buffer_docs": 8, "isolate_documents": True},
    )
    asked = len(Moment)
    done = chomp("prove-resume", config, "--steps", 60, "--kills", asked, "--seed", 5)
    assert done.code == 0, done.out
    for moment in Moment:
        assert f"     1 {moment.value} " in done.out
    assert "proved " in done.out
    assert "runs " not in [line[:5] for line in done.out.splitlines()]


@pytest.mark.slow
def test_a_moment_that_never_comes(tiny: Path, tmp_path: Path):
    values = yaml.safe_load(tiny.read_text("utf-8"))
    values["train"]["steps"] = 4
    tiny.write_text(yaml.safe_dump(values), "utf-8")
    trial = Trial(tiny, tmp_path / "run")
    assert trial.kill(Kill(Moment.SAMPLE, 1, 0.0)) is None
    assert [row["step"] for row in trial.rows("metrics.jsonl")] == [1, 2, 3, 4]
