"""Packages of extras: what needs one says so before a run folder is made."""

import importlib.util
from pathlib import Path

import pytest

from chomp.system.extras import EXTRAS

FOLDER = "tokenizer_of_python"


@pytest.fixture
def without_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation without extras; a real one is in tests/test_wheel.py."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name in EXTRAS else find(name)
    )


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ({"backend": "hf"}, "data.backend: hf needs the package datasets: run pip install "),
        ({"files": ["a.parquet"]}, "data.files: a.parquet needs the package pyarrow: run pip "),
        (
            {"tokenizer": {"kind": "hf", "hf_name_or_path": FOLDER}},
            f"data.tokenizer.hf_name_or_path: {FOLDER}, a folder without a tokenizer.json, needs "
            "the package transformers: run pip install 'chomp[hub]'",
        ),
    ],
)
@pytest.mark.usefixtures("without_extras")
def test_a_missing_package_is_said_before_anything_is_made(
    chomp, config_file, tmp_path, monkeypatch, data, problem
):
    path = config_file(data=data)
    monkeypatch.chdir(tmp_path)
    Path(FOLDER).mkdir()
    done = chomp("train", path)
    assert done.code == 2
    assert done.err.startswith(f"error: {problem}") and len(done.err.splitlines()) == 1
    assert not Path("runs").exists()


@pytest.mark.usefixtures("without_extras")
def test_parquet_files_in_a_folder_say_so(chomp, config_file, tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.parquet").write_bytes(b"PAR1")
    path = config_file(data={"files": [str(tmp_path / "texts")]})
    done = chomp("train", path, "--run-dir", tmp_path / "run")
    assert done.code == 2
    assert done.err.endswith(
        "a.parquet needs the package pyarrow: run pip install 'chomp[parquet]'\n"
    )
