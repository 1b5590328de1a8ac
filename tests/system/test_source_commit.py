import json
import subprocess
from pathlib import Path

import pytest

from chomp.system import source_commit as module
from chomp.system.source_commit import source_commit


def test_a_checkout_names_its_commit_and_its_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def git(*words: str) -> str:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words]
        done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    monkeypatch.setattr(module, "ROOT", tmp_path)
    file = tmp_path / "src" / "chomp" / "x.py"
    file.parent.mkdir(parents=True)
    file.write_text("1\n")
    git("init", "-q")
    assert source_commit() is None
    git("add", ".")
    git("commit", "-qm", "first")
    assert source_commit() == git("rev-parse", "HEAD")
    file.write_text("2\n")
    assert source_commit() == git("rev-parse", "HEAD") + " with changes"


def test_a_run_keeps_it(small_run: Path):
    versions = json.loads((small_run / "run.json").read_text())["starts"][0]["versions"]
    assert versions.get("commit of chomp") == source_commit()
