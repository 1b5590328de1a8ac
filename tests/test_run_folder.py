import datetime
import json
from pathlib import Path
from typing import Any

import pytest

from chomp.errors import DiskError, ResumeError
from chomp.run_folder import RunFolder, new_run_path


def test_claims_a_new_folder_and_an_empty_one(tmp_path: Path):
    for _ in range(2):
        RunFolder(tmp_path / "a" / "b").claim()
    assert (tmp_path / "a" / "b").is_dir()


def test_a_run_is_not_claimed_twice(tmp_path: Path):
    folder = RunFolder(tmp_path)
    folder.claim()
    folder.write_configs("train: {}\n", {"train": {"steps": 3}})
    with pytest.raises(ResumeError, match=r"--resume latest.*another --run-dir"):
        folder.claim()
    folder.require_run()
    assert folder.original_config.read_text() == "train: {}\n"
    assert json.loads(folder.resolved_config.read_text()) == {"train": {"steps": 3}}


def test_each_config_is_replaced_whole_or_not_at_all(tmp_path: Path, files_of_at_most: Any):
    folder = RunFolder(tmp_path)
    folder.write_configs("train: {}\n", {"train": {"steps": 3}})
    with files_of_at_most(100), pytest.raises(DiskError, match=r"config_original.yaml can't be"):
        folder.write_configs("# long\n" * 100, {"train": {"steps": 4}})
    assert folder.original_config.read_text() == "train: {}\n"
    assert folder.read_resolved() == {"train": {"steps": 4}}
    assert {path.name for path in tmp_path.iterdir()} == {
        "config_original.yaml",
        "config_resolved.json",
    }


def test_a_file_is_no_folder(tmp_path: Path):
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(ResumeError, match="can't be made a run folder"):
        RunFolder(path).claim()


def test_one_process_at_a_time(tmp_path: Path):
    folder = RunFolder(tmp_path / "run")
    folder.claim()
    with folder.lock(), pytest.raises(ResumeError, match="another process"):
        RunFolder(tmp_path / "run").lock()
    folder.lock().close()


def test_no_run_to_resume(tmp_path: Path):
    with pytest.raises(ResumeError, match="holds no run"):
        RunFolder(tmp_path).require_run()


def test_names_inside_are_relative_unless_absolute(tmp_path: Path):
    folder = RunFolder(tmp_path)
    assert folder.inside("checkpoints") == tmp_path / "checkpoints"
    assert folder.inside("/elsewhere/x") == Path("/elsewhere/x")


def test_dated_names_do_not_collide(tmp_path: Path):
    now = datetime.datetime(2030, 1, 2, 3, 4, 5)
    names = []
    for _ in range(3):
        path = new_run_path(tmp_path, now)
        path.mkdir()
        names.append(path.name)
    stem = "2030-01-02_03-04-05"
    assert names == [stem, f"{stem}_1", f"{stem}_2"]
