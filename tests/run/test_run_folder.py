import datetime
import errno
import json
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from chomp.coordinator import Coordinator
from chomp.errors import DiskError, ResumeError
from chomp.run.acquire import acquire_folder
from chomp.run.heartbeat import Heartbeat
from chomp.run.run_folder import RunFolder, new_run_path
from chomp.run_files import RUN_FILES, RUN_PLACES


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


def test_new_folders_of_one_second_do_not_meet(tmp_path: Path):
    now = datetime.datetime(2030, 1, 2, 3, 4, 5)

    def start(_: int) -> str:
        folder = RunFolder(new_run_path(tmp_path, now), numbered=True).claim()
        with folder.lock() as lock:
            folder.check_free(lock)
            folder.write_configs("train: {}", {})
        return folder.path.name

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(start, range(40)))
    stem = "2030-01-02_03-04-05"
    assert sorted(found) == sorted([stem, *(f"{stem}_{number}" for number in range(1, 40))])


def test_a_new_run_overwrites_nothing_that_is_not_chomp_s(tmp_path: Path):
    names = [name for name in map(str, RUN_PLACES) if name not in (".lock", "config_original.yaml")]
    for number, name in enumerate(names):
        folder = RunFolder(tmp_path / str(number)).claim()
        (folder.path / name).write_text("mine")
        for _ in range(2):
            with pytest.raises(ResumeError, match=f"{name} is there already"), ExitStack() as stack:
                acquire_folder(folder, None, Coordinator(), stack)
        assert (folder.path / name).read_text() == "mine"


def test_links_are_not_followed(tmp_path: Path):
    mine = tmp_path / "mine"
    mine.write_text("mine")
    folder = RunFolder(tmp_path / "run").claim()
    for name in (".lock", "config_resolved.json.tmp", "config_original.yaml.tmp", "heartbeat"):
        (folder.path / name).symlink_to(mine)
    with pytest.raises(ResumeError, match="can't be written to"):
        folder.lock()
    folder.write_configs("a: 1", {})
    assert Heartbeat(folder.heartbeat).problem
    keeps = tmp_path / "keeps"
    keeps.mkdir()
    for name in ("tokenizer", "tokenizer.tmp"):
        (folder.path / name).symlink_to(keeps)
    with folder.replace_tokenizer() as draft:
        draft.mkdir()
    assert (mine.read_text(), list(keeps.iterdir())) == ("mine", [])


def test_pipes_do_not_hang_it(tmp_path: Path):
    folder = RunFolder(tmp_path / "run").claim()
    os.mkfifo(folder.path / ".lock")
    with pytest.raises(ResumeError, match="not a regular file"):
        folder.lock()


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_would_be_waited_for_is_refused(tmp_path: Path, kind: str):
    folder = RunFolder(tmp_path / "run").claim()
    folder.write_configs("a: 1", {})
    folder.tokenizer.mkdir()
    for name in (*RUN_FILES, "tokenizer/tokenizer.json"):
        path = folder.inside(name)
        aside = path.rename(tmp_path / "aside") if path.exists() else None
        os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
        with pytest.raises(ResumeError, match=f"{name} is a pipe or a device"):
            folder.require_run()
        path.unlink()
        if aside:
            aside.rename(path)
    folder.inside("train.log").symlink_to("/dev/null")
    folder.require_run()


@pytest.mark.parametrize("inside", ["checkpoints/9", "tokenizer", "tokenizer.tmp/a", "mine/a"])
def test_no_run_inside_another_one(tmp_path: Path, inside: str):
    """It would be taken for a checkpoint, or removed as a draft."""
    RunFolder(tmp_path / "run").claim().write_configs("a: 1", {})
    (tmp_path / "link").symlink_to("run")
    for way in ("run", "link"):
        for numbered in (False, True):
            with pytest.raises(ResumeError, match=r"inside of the run .*/run, .*--run-dir"):
                RunFolder(tmp_path / way / inside, numbered=numbered).claim()
    assert not (tmp_path / "run" / inside).exists()


def test_a_removed_lock_lets_no_second_one_in(tmp_path: Path):
    folder = RunFolder(tmp_path / "run").claim()
    with folder.lock():
        (folder.path / ".lock").unlink()
        with pytest.raises(ResumeError, match="another process"):
            folder.lock()


@pytest.mark.parametrize("code", ["ENOSYS", "ENOLCK", "EOPNOTSUPP", "EBADF"])
def test_without_locks_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str):
    def flock(file: int, operation: int) -> None:
        raise OSError(getattr(errno, code), "no")

    monkeypatch.setattr("fcntl.flock", flock)
    folder = RunFolder(tmp_path / "run").claim()
    with folder.lock() as lock:
        assert not lock.held
