import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from chomp.checkpoint.checkpointer import Checkpointer
from chomp.commands.checkpoint_diff import difference
from chomp.types import Progress, TrainState


@pytest.fixture
def run(small_run: Path, tmp_path: Path) -> Path:
    """A copy of the small run."""
    return shutil.copytree(small_run, tmp_path / "run")


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def words(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


class TestList:
    def test_shows_each(self, chomp: Any, run: Path, read_rows: Any):
        done = chomp("checkpoints", "list", run)
        assert done.code == 0, done.err
        head, *rows = words(done.out)
        assert head == "step size age tokens stays state"
        tokens = {row["step"]: row["tokens_seen"] for row in read_rows(run)}
        for step, row in zip((10, 20, 30), rows, strict=True):
            files = (run / "checkpoints" / str(step)).rglob("*")
            size = sum(f.stat().st_size for f in files if f.is_file() and f.name != "manifest.json")
            assert row.startswith(f"{step} {size / 1e6:.1f} MB ")
            assert row.endswith(f" {tokens[step]:,} while new complete")

    def test_shows_what_is_permanent_and_what_is_incomplete(self, chomp: Any, run: Path):
        resolved = run / "config_resolved.json"
        text = resolved.read_text()
        resolved.write_text(text.replace('"keep_every": 0', '"keep_every": 20'))
        (run / "checkpoints" / "10" / "manifest.json").unlink()
        (run / "checkpoints" / "30" / "run.json").write_text("")
        _, first, second, third = words(chomp("checkpoints", "list", run).out)
        assert first == "10 while new manifest.json is missing"
        assert second.endswith("for good complete")
        assert "run.json has 0 bytes instead of" in third


class TestVerify:
    def test_says_which_file_is_damaged(self, chomp: Any, run: Path):
        done = chomp("checkpoints", "verify", run)
        assert (done.code, done.out) == (0, "step 10: good\nstep 20: good\nstep 30: good\n")
        flip(run / "checkpoints" / "20" / "train" / "_METADATA")
        done = chomp("checkpoints", "verify", run)
        assert done.code == 1
        assert "step 20: train/_METADATA has changed" in done.out
        assert chomp("checkpoints", "verify", run, "--step", 20).code == 1
        assert chomp("checkpoints", "verify", run, "--step", 30).code == 0
        done = chomp("checkpoints", "verify", run, "--step", 31)
        assert (done.code, "saved steps: 10, 20, 30" in done.err) == (2, True)

    @pytest.mark.parametrize("command", ["list", "verify"])
    def test_of_no_run_or_no_checkpoints(self, chomp: Any, run: Path, tmp_path: Path, command: str):
        done = chomp("checkpoints", command, tmp_path)
        assert (done.code, "holds no run" in done.err) == (2, True)
        shutil.rmtree(run / "checkpoints")
        done = chomp("checkpoints", command, run)
        assert (done.code, "has no checkpoints" in done.err) == (2, True)


@pytest.fixture
def read_only(run: Path) -> Iterator[Path]:
    """The run on a disk that nothing can be written to."""
    for options in (["--bind", str(run), str(run)], ["-o", "remount,ro,bind", str(run)]):
        done = subprocess.run(["mount", *options], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"mounting isn't allowed here: {done.stderr.strip()}")
    yield run
    subprocess.run(["umount", "--lazy", str(run)], check=True)


def test_all_work_on_a_read_only_folder(chomp: Any, read_only: Path, small_run: Path):
    with pytest.raises(OSError, match="Read-only"):
        (read_only / "file").touch()
    assert chomp("checkpoints", "list", read_only).code == 0
    assert chomp("checkpoints", "verify", read_only).code == 0
    assert chomp("checkpoints", "diff", read_only, small_run).code == 0
    assert chomp("checkpoints", "diff", read_only, "--step", 10, "--step2", 20).code == 1


class TestDiff:
    def test_of_equal_ones(self, chomp: Any, run: Path, small_run: Path):
        done = chomp("checkpoints", "diff", run, small_run)
        assert (done.code, done.out) == (0, "equal, bit for bit\n")
        done = chomp("checkpoints", "diff", run, small_run, "--step", 20, "--step2", 20)
        assert done.code == 0

    def test_of_two_steps(self, chomp: Any, run: Path, read_rows: Any):
        done = chomp("checkpoints", "diff", run, "--step", 20)
        assert done.code == 1, done.err
        assert "count step: 20 and 30" in done.out
        tokens = {row["step"]: row["tokens_seen"] for row in read_rows(run)}
        assert f"count tokens_seen: {tokens[20]} and {tokens[30]}" in done.out
        assert "data place " in done.out
        assert "elements differ, by" in done.out

    def test_needs_two(self, chomp: Any, run: Path):
        done = chomp("checkpoints", "diff", run)
        assert (done.code, "--step2" in done.err) == (2, True)

    def test_of_a_damaged_one_is_refused(self, chomp: Any, run: Path, small_run: Path):
        flip(run / "checkpoints" / "20" / "run.json")
        done = chomp("checkpoints", "diff", run, small_run, "--step", 20)
        assert (done.code, "run.json has changed" in done.err) == (2, True)


NAN, OTHER_NAN = (np.array(bits, np.uint32).view(np.float32) for bits in (0x7FC00000, 0x7FC00001))


@pytest.fixture
def compare(small_run: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """Save two states with one parameter each in copies of a run; return what differs."""

    def compared(*values: Any) -> list[str]:
        runs = []
        for index, value in enumerate(values):
            run = tmp_path / f"run{index}"
            ignored = shutil.ignore_patterns("checkpoints")
            shutil.copytree(small_run, run, ignore=ignored, dirs_exist_ok=True)
            shutil.rmtree(run / "checkpoints", ignore_errors=True)
            zero = jnp.zeros((), jnp.int32)
            state = TrainState({"w": jnp.asarray(value)}, {"m": zero}, zero, zero, zero)
            checkpoints = Checkpointer(run / "checkpoints")
            checkpoints.save(state, Progress(1), {"at": [1, {"x": 2}]}, {})
            checkpoints.close()
            runs.append(run)
        return list(difference(runs[0], None, runs[1], None))

    return compared


def test_single_elements_are_found(compare: Callable[..., list[str]]):
    a = np.arange(6, dtype=np.float32).reshape(2, 3)
    b = a.copy()
    b[1, 2] += 0.5
    b[0, 0] = -0.0
    assert compare(a, a) == []
    assert compare(a, b) == ["['w']: float32 2 x 3, 2 of 6 elements differ, by 0.5 at most"]


def test_nans_are_compared_by_their_bits(compare: Callable[..., list[str]]):
    a = np.array([NAN, 1], np.float32)
    b = np.array([OTHER_NAN, 1], np.float32)
    assert a.tobytes() != b.tobytes()
    assert compare(a, a) == []
    assert compare(a, b) == ["['w']: float32 2, 1 of 2 elements differ, by 0 at most"]


def test_kinds_are_compared(compare: Callable[..., list[str]]):
    a = jnp.ones((2, 2), jnp.bfloat16)
    assert compare(a, a) == []
    assert compare(a, a * 3) == ["['w']: bfloat16 2 x 2, 4 of 4 elements differ, by 2 at most"]
    assert compare(a, jnp.ones((2, 2))) == ["['w']: bfloat16 2 x 2 and float32 2 x 2"]
    assert compare(a, jnp.ones(2, jnp.bfloat16)) == ["['w']: bfloat16 2 x 2 and bfloat16 2"]
    assert compare(jnp.uint32(7), jnp.uint32(9)) == [
        "['w']: uint32 scalar, 1 of 1 elements differ, by 2 at most"
    ]
