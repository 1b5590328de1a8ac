"""Any JSON of a run, replaced by what no reader expects: a line, never a traceback."""

import shutil
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("share_programs")

FILES = (
    "config_resolved.json",
    "run.json",
    "run.events.jsonl",
    "metrics.jsonl",
    "ledger.jsonl",
    "samples.jsonl",
    "heartbeat",
    "checkpoints/30/manifest.json",
    "checkpoints/30/run.json",
)
CONTENTS = {
    "nested": b"[" * 200_000,
    "a ledger's line": b'{"step":1,"batch":' + b"[" * 200_000 + b"}\n",
    "not UTF-8": b"\xff\xfe{}",
    "another type": b"[1]",
    "no keys": b"{}\n",
    "empty": b"",
    "out of range": b'{"step": 1e999, "run": 5, "starts": {"a": 1}, "model": NaN}\n',
}
COMMANDS = (
    ("status",),
    ("checkpoints", "list"),
    ("checkpoints", "verify"),
    ("trace",),
    ("report", "--output", "page.html"),
)


@pytest.mark.parametrize("name", FILES)
def test_no_command_crashes(
    chomp: Any, small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    monkeypatch.chdir(tmp_path)  # where the page goes
    run = Path(shutil.copytree(small_run, tmp_path / "run"))
    for content in (*CONTENTS.values(), None):
        (run / name).unlink(missing_ok=True)
        if content is None:
            (run / name).mkdir()
        else:
            (run / name).write_bytes(content)
        for command in COMMANDS:
            done = chomp(*command, run)
            assert done.code in (0, 1, 2)
            assert done.code == 0 or done.err.startswith("error: ") or done.out
            assert len(done.err) < 2000
    (run / name).rmdir()
    (run / name).write_bytes(CONTENTS["nested"])
    if name.startswith("checkpoints"):
        assert "step 30: " + name.split("/")[-1] in chomp("checkpoints", "verify", run).out


@pytest.mark.parametrize("name", ["checkpoints/30/manifest.json", "ledger.jsonl", "run.json"])
def test_a_resume_says_so_and_goes_on(chomp: Any, small_run: Path, tmp_path: Path, name: str):
    run = Path(shutil.copytree(small_run, tmp_path / "run"))
    with (run / name).open("wb") as file:
        file.write(CONTENTS["nested"])
    done = chomp("train", "--run-dir", run, "--resume", "latest", "-o", "train.steps=31")
    assert done.code == 0, done.err
    said = {
        "checkpoints/30/manifest.json": "falling back to step 20",
        "ledger.jsonl": "31 of its 31 lines up to step 30 are lost",
        "run.json": "run.json is broken",
    }
    assert said[name] in done.out
