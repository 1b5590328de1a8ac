"""Command lines of users who haven't read the manual: each gets the words that help."""

import shutil
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def here(tmp_path: Path, config_file: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `config.yaml`, a folder of nothing, and a newest run."""
    config_file()
    (tmp_path / "folder").mkdir()
    (tmp_path / "notes.txt").write_text("")
    for name in ("2026-01-01_a", "2026-02-02_b"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "run.json").write_text("{}")
        (tmp_path / "runs" / name / "config_original.yaml").write_text("")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("run config.yaml", "chomp train CONFIG"),
        ("help", "chomp --help"),
        ("version", "chomp --version"),
        ("resume runs/x", "chomp train --run-dir RUN --resume latest"),
        ("train folder", "is a directory"),
        ("train .", "it holds config.yaml"),
        ("train runs/2026-02-02_b", "--run-dir runs/2026-02-02_b --resume latest"),
        ("train confg.yml", "did you mean config.yaml?"),
        ("train config.yaml --steps 100", "-o train.steps=100"),
        ("train config.yaml --batch-size 8", "-o train.batch_size=8"),
        ("train config.yaml --lr 1e-3", "-o optim.lr=1e-3"),
        ("train config.yaml train.steps=3", "-o train.steps=3"),
        ("train config.yaml -o train.steps 3", "-o train.steps=3"),
        ("train config.yaml -o --train.steps=3", "-o train.steps=3"),
        ("train -c config.yaml", "CONFIG without an option"),
        ("train --config config.yaml", "CONFIG without an option"),
        ("train config.yaml --resume latest", "--run-dir runs/2026-0"),
        ("train config.yaml --run-dir x --resume none", "leave --resume out"),
        ("train config.yaml --run-dir x --resume last", "write latest, or a step"),
        ("status", "the newest run here is runs/2026-0"),
        ("checkpoints list", "the newest run here is runs/2026-0"),
        ("status config.yaml", "config.yaml is a file; a run is a folder"),
        ("status notes.txt", "notes.txt is a file; a run is a folder"),
        ("status runs/2026-02-02_b/run.json", "a run is a folder: give runs/2026-02-02_b"),
        ("train --run-dir x --resume latest --dry-run", "leave --resume out"),
        ("generate runs/x hello", "--prompt hello"),
        ("generate runs/x -p hello", "write --prompt"),
        ("config show config.yaml -o train.steps=1e3", "write 1000"),
        ("config show config.yaml -o train.eval_every=None", "write 0"),
        ("config show config.yaml -o logging.log_file=''", "write null for none"),
        ("config show config.yaml -o data.tokenizer.max_doc_tokens=0", "write null for none"),
        ("config show config.yaml -o data.hf_eval_split=none", None),
        ("config show config.yaml -o data.files=a.txt,b.txt", "write ['a.txt', 'b.txt']"),
    ],
)
def test_a_hint_says_what_to_write(here: Path, chomp: Any, line: str, words: str | None):
    done = chomp(*line.split())
    if words is None:
        assert done.code == 0
        return
    assert done.code == 2
    assert words.lower() in done.err.lower()
    assert len(done.err.splitlines()) <= 4  # with click's own lines about the usage


@pytest.mark.parametrize("place", ["checkpoints/30", "checkpoints"])
@pytest.mark.parametrize("command", ["status", "generate", "trace", "checkpoints list"])
def test_a_checkpoint_given_as_a_run_names_its_run(
    small_run: Path, tmp_path: Path, chomp: Any, place: str, command: str
):
    done = chomp(*command.split(), small_run / place)
    assert done.code == 2
    assert f"give its run, {small_run}" in done.err


def test_a_new_run_is_named_after_its_config(
    config_file: Any, tmp_path: Path, chomp: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    shutil.move(config_file(), "my model (2).yaml")
    assert chomp("train", "my model (2).yaml").code == 0
    [run] = (tmp_path / "runs").iterdir()
    assert run.name.endswith("_my-model-2")
