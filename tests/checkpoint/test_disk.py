"""Disks that are full, become full, can't be written to, or go: with real ones, in memory."""

import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chomp.checkpoint.checkpointer import Checkpointer
from chomp.checkpoint.disk import check_room, reason
from chomp.errors import DiskError
from chomp.types import Progress, TrainState

Open = Callable[..., Checkpointer]
Mount = Callable[[str], Path]
SIZE = 4_000_000
"""Bytes of a `noise` state's arrays."""


def state_of(make: Callable[[int], np.ndarray]) -> TrainState:
    params, moments = ({f"w{i}": jnp.asarray(make(i))} for i in range(2))
    zero = jnp.zeros((), jnp.int32)
    return TrainState(params, moments, zero, zero, jax.random.PRNGKey(0))


@pytest.fixture(scope="module")
def noise() -> TrainState:
    """A state that can't be compressed."""
    return state_of(
        lambda seed: np.random.default_rng(seed).integers(0, 2**32, SIZE // 8, dtype=np.uint32)
    )


@pytest.fixture(scope="module")
def zeros() -> TrainState:
    """A state of which nothing is left when it is compressed."""
    return state_of(lambda _: np.zeros(SIZE // 8, np.uint32))


def save(checkpoints: Checkpointer, state: TrainState, step: int) -> list[str]:
    """Save and wait; return what went wrong. Hanging is what Orbax once did: 300 s."""
    start = time.monotonic()
    checkpoints.save(state, Progress(step), {}, {})
    checkpoints.wait()
    assert time.monotonic() - start < 30
    return checkpoints.problems()


def used(disk: Path) -> int:
    return shutil.disk_usage(disk).used


@pytest.mark.parametrize("async_save", [False, True])
class TestSave:
    def test_is_not_tried_without_room(
        self, opened: Open, mount: Mount, noise: Any, async_save: bool
    ):
        disk = mount("10m")
        checkpoints = opened(disk / "c", async_save=async_save)
        assert save(checkpoints, noise, 1) == []
        (disk / "other").write_bytes(bytes(4_000_000))
        before = used(disk)
        [problem] = save(checkpoints, noise, 2)
        assert "step 2 not saved: it needs about 4.0 MB, 2." in problem
        assert "MB are free" in problem
        assert str(disk) in problem
        assert used(disk) == before
        assert (checkpoints.last_good, checkpoints.good_steps()) == (1, [1])
        (disk / "other").unlink()
        assert save(checkpoints, noise, 3) == []
        assert (checkpoints.last_good, checkpoints.good_steps()) == (3, [1, 3])

    @pytest.mark.parametrize("free", [2000, 40_000, 300_000, 2_500_000])
    def test_of_a_disk_that_fills_leaves_nothing_behind(
        self, opened: Open, mount: Mount, noise: Any, zeros: Any, async_save: bool, free: int
    ):
        disk = mount("10m")
        checkpoints = opened(disk / "c", async_save=async_save)
        # Compressed it is small, so less room than the next one needs is taken to be enough.
        assert save(checkpoints, zeros, 1) == []
        fill(disk / "other", leave=max(free, 40_000))
        checkpoints.save(noise, Progress(2), {}, {})
        if free < 40_000 and async_save:
            with suppress(OSError):  # the save itself may have filled the disk by now
                fill(disk / "more", leave=free)
        checkpoints.wait()
        [problem] = checkpoints.problems()
        assert "step 2 not saved: No space left on device" in problem
        assert (checkpoints.last_good, checkpoints.good_steps()) == (1, [1])
        assert [path.name for path in (disk / "c").iterdir()] == ["1"]
        for other in ("other", "more"):
            (disk / other).unlink(missing_ok=True)
        assert save(checkpoints, noise, 3) == []
        assert (checkpoints.last_good, checkpoints.good_steps()) == (3, [1, 3])

    def test_in_a_folder_that_became_unwritable(
        self, opened: Open, mount: Mount, noise: Any, async_save: bool
    ):
        disk = mount("30m")
        checkpoints = opened(disk / "c", async_save=async_save)
        assert save(checkpoints, noise, 1) == []
        remount(disk, "ro")
        for step in (2, 3):
            [problem] = save(checkpoints, noise, step)
            assert f"step {step} not saved: Read-only file system" in problem
        assert (checkpoints.last_good, checkpoints.good_steps()) == (1, [1])
        remount(disk, "rw")
        assert save(checkpoints, noise, 4) == []
        assert (checkpoints.last_good, checkpoints.good_steps()) == (4, [1, 4])

    def test_in_a_folder_that_vanished(
        self, opened: Open, tmp_path: Path, noise: Any, async_save: bool
    ):
        checkpoints = opened(async_save=async_save)
        assert save(checkpoints, noise, 1) == []
        shutil.rmtree(checkpoints.folder)
        [problem] = save(checkpoints, noise, 2)
        assert f"{checkpoints.folder} is gone" in problem
        assert (checkpoints.last_good, checkpoints.good_steps()) == (2, [2])
        # A file in its place: as unwritable as a folder can be.
        shutil.rmtree(checkpoints.folder)
        checkpoints.folder.touch()
        *_, problem = save(checkpoints, noise, 3)
        assert "step 3 not saved: File exists" in problem
        assert checkpoints.last_good is None
        checkpoints.folder.unlink()
        save(checkpoints, noise, 4)
        assert (checkpoints.last_good, checkpoints.good_steps()) == (4, [4])


def fill(path: Path, *, leave: int) -> None:
    path.write_bytes(bytes(shutil.disk_usage(path.parent).free - leave))


def remount(disk: Path, mode: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{mode}", str(disk)], check=True)


def test_a_folder_that_vanishes_under_a_save(opened: Open, noise: Any):
    checkpoints = opened(async_save=True)
    assert save(checkpoints, noise, 1) == []
    checkpoints.save(noise, Progress(2), {}, {})
    shutil.rmtree(checkpoints.folder, ignore_errors=True)
    checkpoints.wait()
    save(checkpoints, noise, 3)
    assert checkpoints.last_good == 3
    assert 3 in checkpoints.good_steps()


class TestPrepare:
    def test_wants_room_for_two(self, opened: Open, mount: Mount, noise: Any):
        disk = mount("7m")
        with pytest.raises(DiskError, match=r"no room for two.*takes about 4\.3 MB, 7\.. MB are"):
            opened(disk / "c").prepare(noise)
        # That a checkpoint is there already makes it no smaller.
        checkpoints = opened(disk / "c")
        assert save(checkpoints, noise, 1) == []
        with pytest.raises(DiskError, match=r"no room for two .*takes about 4\.0 MB, 3\.. MB are"):
            opened(disk / "c").prepare(noise)
        assert DiskError.exit_code == 2

    def test_counts_the_checkpoints_that_are_there(self, opened: Open, mount: Mount, noise: Any):
        disk = mount("14m")
        checkpoints = opened(disk / "c", max_to_keep=2)
        assert checkpoints.prepare(noise) is None
        for step in (1, 2):
            assert save(checkpoints, noise, step) == []
        assert checkpoints.prepare(noise) is None

    def test_warns_if_not_all_to_keep_have_room(self, opened: Open, mount: Mount, noise: Any):
        checkpoints = opened(mount("14m") / "c", max_to_keep=3)
        warning = checkpoints.prepare(noise)
        assert warning is not None
        assert "room for 3 checkpoints" in warning
        assert "checkpoint.max_to_keep: 3 needs room for 4" in warning
        assert "set it to 2" in warning
        for step in (1, 2, 3):
            assert save(checkpoints, noise, step) == []
        assert len(save(checkpoints, noise, 4)) == 1

    def test_refuses_a_folder_that_can_not_be_written_to(
        self, opened: Open, mount: Mount, noise: Any, tmp_path: Path
    ):
        (tmp_path / "file").touch()
        with pytest.raises(DiskError, match="can't be written to"):
            opened(tmp_path / "file").prepare(noise)
        disk = mount("30m")
        (disk / "c").mkdir()
        remount(disk, "ro")
        with pytest.raises(DiskError, match=r"can't be written to \(Read-only file system\)"):
            opened(disk / "c").prepare(noise)


def test_room(tmp_path: Path):
    free = shutil.disk_usage(tmp_path).free
    assert check_room(tmp_path, held=0, size=1000, max_to_keep=3) is None
    with pytest.raises(DiskError):
        check_room(tmp_path, held=0, size=int(free * 0.6), max_to_keep=3)
    assert check_room(tmp_path, held=free, size=int(free * 0.6), max_to_keep=3) is not None
    with pytest.raises(DiskError):
        check_room(tmp_path, held=9 * free, size=2 * free, max_to_keep=3)


def test_reasons_are_short():
    assert reason(OSError(28, "No space left on device", "/x")) == "No space left on device"
    text = "RESOURCE_EXHAUSTED: Error writing ... [os_error_code='28'] " + "[source] " * 99
    assert reason(ValueError(text)) == "No space left on device"
    assert reason(RuntimeError("a\n  b" * 300)).startswith("a ba b")
    assert len(reason(RuntimeError("a\n  b" * 300))) == 300
    assert reason(RuntimeError()) == "RuntimeError"
