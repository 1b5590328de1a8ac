"""A run folder of unknown origin: nothing in it has this machine run its code."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import jax
import pytest
import yaml

TRUST = "data.tokenizer.hf_trust_remote_code"


@pytest.fixture
def foreign(small_run: Path, tmp_path: Path) -> Path:
    """A run whose tokenizer comes with Python code, and whose configs say that it may run."""
    folder = tmp_path / "foreign"
    shutil.copytree(small_run, folder)
    tokenizer = folder / "tokenizer"
    (tokenizer / "own.py").write_text(
        f"open({str(tmp_path / 'was_here')!r}, 'w')\nraise ValueError('it runs')\n"
    )
    (tokenizer / "tokenizer_config.json").write_text(
        json.dumps({"auto_map": {"AutoTokenizer": ["own.Own", None]}})
    )
    values = {"kind": "hf", "hf_name_or_path": str(tokenizer), "hf_trust_remote_code": True}
    resolved = folder / "config_resolved.json"
    config = json.loads(resolved.read_text())
    config.pop("derived")
    config["data"]["tokenizer"] |= values
    resolved.write_text(json.dumps(config))
    (folder / "config_original.yaml").write_text(yaml.safe_dump(config))
    return folder


@pytest.mark.parametrize(
    "line",
    [
        "generate {run} --prompt x",
        "train --run-dir {run} --resume latest",
        "train {run}/config_original.yaml --run-dir {new}",
        "train {run}/config_resolved.json --dry-run",
        "data prepare {run}/config_original.yaml {new}",
        "config show {run}/config_resolved.json",
    ],
)
def test_its_python_runs_only_by_the_users_own_word(
    foreign: Path, tmp_path: Path, chomp: Any, line: str
):
    words = [word.format(run=foreign, new=tmp_path / "new") for word in line.split()]
    done = chomp(*words)
    assert done.code == 2
    assert TRUST in done.err
    assert "say so yourself" in done.err
    assert not (tmp_path / "was_here").exists()


def test_the_users_word_is_heard(foreign: Path, tmp_path: Path, chomp: Any):
    done = chomp("generate", foreign, "--prompt", "x", "--trust-remote-code")
    assert "it runs" in done.err
    assert (tmp_path / "was_here").exists()


def test_a_prepared_corpus_runs_none_either(
    config_file: Any, tmp_path: Path, chomp: Any, foreign: Path
):
    out = tmp_path / "tokens"
    assert chomp("data", "prepare", config_file(), out).code == 0
    manifest = json.loads((out / "manifest.json").read_text())
    from chomp.data.token_cache.corpus import open_token_corpus

    corpus = open_token_corpus(out)
    plan = corpus.manifest.plan
    plan["tokenizer"]["kind"] = "hf"
    plan["frame"]["hf_trust_remote_code"] = True
    shutil.rmtree(out / "tokenizer")
    shutil.copytree(foreign / "tokenizer", out / "tokenizer")
    assert manifest
    with pytest.raises(Exception, match=r"own\.py|custom code|trust"):
        corpus.load_tokenizer()
    assert not (tmp_path / "was_here").exists()


@pytest.mark.parametrize("kind", ["inside", "shared"])
def test_its_compiled_programs_are_not_run(
    small_run: Path, tmp_path: Path, chomp: Any, kind: str, monkeypatch: pytest.MonkeyPatch
):
    run, own = tmp_path / "run", tmp_path / "own"
    shutil.copytree(small_run, run)
    monkeypatch.setenv("XDG_CACHE_HOME", str(own))
    cache = run / "cache" if kind == "inside" else tmp_path / "shared"
    cache.mkdir()
    if kind == "shared":
        cache.chmod(0o777)
    resolved = run / "config_resolved.json"
    config = json.loads(resolved.read_text())
    config["runtime"]["compile_cache"] = str(cache)
    resolved.write_text(json.dumps(config))
    before = jax.config.jax_compilation_cache_dir
    try:
        done = chomp("generate", run, "--prompt", "x", "--max-tokens", 1)
        assert jax.config.jax_compilation_cache_dir == str(own / "chomp" / "jax")
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
    assert done.code == 0, done.err
    assert "others than you could have put programs there" in done.err
    assert list(cache.iterdir()) == []


def test_it_makes_no_file_elsewhere_but_by_the_users_own_word(
    small_run: Path, tmp_path: Path, chomp: Any
):
    run, outside = tmp_path / "run", tmp_path / "home" / "new.log"
    shutil.copytree(small_run, run)
    resolved = run / "config_resolved.json"
    config = json.loads(resolved.read_text())
    config["logging"]["log_file"] = str(outside)
    resolved.write_text(json.dumps(config))
    resume = ("train", "--run-dir", run, "--resume", "latest", "-o", "train.steps=31")
    done = chomp(*resume)
    assert done.code == 2
    assert f"-o logging.log_file={outside}" in done.err
    assert not outside.parent.exists()
    new = ("train", resolved, "--run-dir", tmp_path / "new")
    assert f"-o logging.log_file={outside}" in chomp(*new).err
    said = f"logging.log_file={outside}"
    assert chomp(*resume, "-o", said).code == 0
    assert outside.is_file()
    done = chomp(*resume[:-1], "train.steps=32")
    assert done.code == 0, done.err


def test_a_copy_by_hard_links_shares_nothing_that_is_written(
    small_run: Path, tmp_path: Path, chomp: Any
):
    original, copy = tmp_path / "original", tmp_path / "copy"
    shutil.copytree(small_run, original)
    (original / "metrics.replaced.jsonl").write_text("{}\n")
    shutil.copytree(original, copy, copy_function=os.link)
    before = {path: path.read_bytes() for path in original.rglob("*") if path.is_file()}
    modes = {path: path.stat().st_mode for path in before}
    done = chomp("train", "--run-dir", copy, "--resume", "20")
    assert done.code == 0, done.err
    assert {path: path.read_bytes() for path in original.rglob("*") if path.is_file()} == before
    assert {path: path.stat().st_mode for path in before} == modes
    assert len((copy / "metrics.replaced.jsonl").read_text().splitlines()) == 11
