"""The compile cache: where it is, how large it gets, and whose programs are run."""

import os
from pathlib import Path
from typing import Any

import pytest

from chomp.system.compile_cache import Held, cache_folder, held, is_own, trim

DIGEST = "4f0e4a325fc55a1bb6a026f449f67f097b3fbb81e73b0c3ec318721ef4032cd7"


def program(folder: Path, number: int, size: int = 100) -> Path:
    path = folder / f"jit_step{number}-{DIGEST}-cache"
    path.write_bytes(bytes(size))
    os.utime(path, (number, number))
    return path


def test_auto_is_the_platforms_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder("auto") == tmp_path / "chomp" / "jax"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder("auto") == tmp_path / ".cache" / "chomp" / "jax"
    assert cache_folder("~/x") == tmp_path / "x"


def test_the_programs_not_used_for_longest_go_first_and_nothing_else(tmp_path: Path):
    programs = [program(tmp_path, number) for number in range(1, 7)]
    beside = tmp_path / programs[0].name.replace("-cache", "-atime")
    others = [tmp_path / name for name in ("notes.txt", "a-cache", f"{DIGEST}-cache.bak")]
    for path in (beside, *others):
        path.write_text("x" * 1000)
    (tmp_path / f"folder-{DIGEST}-cache").mkdir()
    target = tmp_path / "elsewhere"
    target.write_text("x" * 1000)
    (tmp_path / f"link-{DIGEST}-cache").symlink_to(target)
    assert held(tmp_path) == Held(6, 600)
    assert trim(tmp_path, 350) == Held(3, 300)
    assert [path.exists() for path in programs] == [False] * 3 + [True] * 3
    assert not beside.exists()
    assert all(path.exists() for path in (*others, target))
    assert trim(tmp_path, 350) == Held(0, 0)
    assert trim(tmp_path / "not there", 1) == held(tmp_path / "not there") == Held(0, 0)


def test_a_run_keeps_its_cache_below_the_limit_and_status_tells_it(
    chomp: Any, config_file: Any, tmp_path: Path
):
    cache = tmp_path / "cache"
    cache.mkdir()
    old = program(cache, 1, 3_000_000)
    config = config_file(runtime={"compile_cache": str(cache), "compile_cache_gb": 0.002})
    assert chomp("train", config, "--run-dir", tmp_path / "run").code == 0
    assert not old.exists()
    found = held(cache)
    lines = chomp("status", tmp_path / "run").out
    assert f"cache      {cache}: {found.programs} compiled programs" in lines
    assert "of at most 0.002 GB" in lines


def test_only_folders_that_others_cannot_write_to_are_ones_own(tmp_path: Path):
    mine, shared, run = (tmp_path / name for name in ("mine", "shared", "run"))
    for folder in (mine, shared, run, run / "cache"):
        folder.mkdir()
    shared.chmod(0o777)
    (tmp_path / "link").symlink_to(run / "cache")
    assert is_own(mine, run)
    for folder in (shared, run / "cache", tmp_path / "link", tmp_path / "none", Path("mine")):
        assert not is_own(folder, run)
