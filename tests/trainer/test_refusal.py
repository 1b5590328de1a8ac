"""What keeps a run from starting is said at once, whichever of it is found first."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

PATHS = {
    "data": {
        "backend": "files",
        "files": ["nothing.txt"],
        "tokenizer": {"kind": "hf", "hf_name_or_path": "none.json"},
    }
}
BROKEN_RULES = {
    "model": {"chunk_size": 64},
    "train": {"steps": 10, "seq_len": 100},
    "optim": {"warmup_steps": 20},
}
MISSING = ("data.files: no file matches", "data.tokenizer.hf_name_or_path: there is no file")
NO_GPU = "train.allow_cpu: JAX found no accelerator"


def refused(folder: Path, values: dict, *args: str) -> list[str]:
    """Run `chomp train` in a folder, in an interpreter of its own, and return its error lines."""
    (folder / "first.yaml").write_text(yaml.safe_dump(values))
    done = subprocess.run(
        [sys.executable, "-m", "chomp", "train", "first.yaml", *args],
        cwd=folder,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert all(line.startswith("error: ") for line in lines), done.stderr
    return [line.removeprefix("error: ") for line in lines]


def starts(lines: list[str], *beginnings: str) -> bool:
    """Whether each line begins with one of these, each once."""
    return sorted(lines) == sorted(
        line for start in beginnings for line in lines if line.startswith(start)
    ) and len(lines) == len(beginnings)


def test_five_mistakes_of_different_kinds(tmp_path: Path):
    lines = refused(tmp_path, PATHS | BROKEN_RULES)
    assert starts(lines, "train.seq_len: ", "optim.warmup_steps: ", *MISSING, NO_GPU), lines
    assert [path.name for path in tmp_path.iterdir()] == ["first.yaml"]


@pytest.mark.parametrize("option", ["--run-dir=run", "--dry-run"])
def test_a_valid_config_whose_surroundings_are_wrong(tmp_path: Path, option: str):
    assert starts(lines := refused(tmp_path, PATHS, option), *MISSING, NO_GPU), lines


def test_what_comes_after_the_device(tmp_path: Path):
    lines = refused(tmp_path, PATHS | {"train": {"allow_cpu": True}}, "--run-dir=run")
    assert starts(lines, *MISSING), lines


def test_values_that_are_no_values_are_not_judged(tmp_path: Path):
    values = {
        "data": {"backend": "files", "files": 3, "tokenizer": {"kind": "hfx"}},
        "train": {"allow_cpu": "perhaps"},
    }
    lines = refused(tmp_path, values)
    assert starts(lines, "data.files: must be", "data.tokenizer.kind: ", "train.allow_cpu: must")
