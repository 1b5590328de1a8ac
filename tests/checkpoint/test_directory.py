import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from chomp.checkpoint.directory import (
    CheckpointChoice,
    CheckpointDirectory,
    Retention,
    damage_lines,
)
from chomp.errors import ResumeError


def delete(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip(path: Path) -> None:
    """Change the lowest bit of the byte in the middle."""
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


DAMAGE: tuple[Callable[[Path], None], ...] = (delete, truncate, empty, flip)


@pytest.fixture
def archive(saved_folder: Path, tmp_path: Path) -> CheckpointDirectory:
    return CheckpointDirectory(shutil.copytree(saved_folder, tmp_path / "checkpoints"))


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_to_any_file_is_found_and_the_next_older_one_taken(
    archive: CheckpointDirectory, damage: Callable[[Path], None]
):
    files = [path for path in archive.path(30).rglob("*") if path.is_file()]
    assert {"manifest.json", "run.json", "_METADATA", "_sharding", "manifest.ocdbt"} <= {
        path.name for path in files
    }
    for path in files:
        good = path.read_bytes()
        damage(path)
        assert not path.exists() or path.read_bytes() != good
        choice = archive.choose("latest")
        assert choice.step == 20
        [(step, problem)] = choice.rejected
        assert step == 30
        assert problem.startswith(str(path.relative_to(archive.path(30))))
        path.write_bytes(good)
    assert archive.choose("latest") == CheckpointChoice(30, [])


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_to_the_only_one_is_said(
    archive: CheckpointDirectory, damage: Callable[[Path], None]
):
    for step in (20, 30):
        shutil.rmtree(archive.path(step))
    for path in [path for path in archive.path(10).rglob("*") if path.is_file()]:
        good = path.read_bytes()
        damage(path)
        with pytest.raises(ResumeError) as caught:
            archive.choose("latest")
        assert f"step 10: {path.relative_to(archive.path(10))}" in str(caught.value)
        path.write_bytes(good)


def test_several_damaged_ones_are_passed_over(archive: CheckpointDirectory):
    delete(archive.path(30) / "run.json")
    empty(archive.path(20) / "manifest.json")
    choice = archive.choose("latest")
    assert choice.step == 10
    assert [step for step, _ in choice.rejected] == [30, 20]
    lines = damage_lines(choice)
    assert lines[0] == "the checkpoint of step 30 is damaged: run.json is missing"
    assert lines[-1] == "falling back to step 10"
    flip(archive.path(10) / "run.json")
    with pytest.raises(ResumeError) as caught:
        archive.choose("latest")
    for line in ("step 30: run.json is missing", "step 20: manifest.json", "step 10: run.json has"):
        assert line in str(caught.value)


def test_a_damaged_step_that_is_asked_for_is_refused(archive: CheckpointDirectory):
    flip(archive.path(20) / "run.json")
    for wanted in ("20", 20):
        with pytest.raises(ResumeError, match=r"step 20 .* run\.json has changed.*steps: 10, 30"):
            archive.choose(wanted)
    assert archive.choose(30) == archive.choose("30") == CheckpointChoice(30, [])


def test_steps_by_name(archive: CheckpointDirectory, tmp_path: Path):
    for wanted in ("3", "-2", "newest", "", "010", "٣٠", 11):
        with pytest.raises(ResumeError, match=r"saved steps: 10, 20, 30.*latest"):
            archive.choose(wanted)
    nothing = CheckpointDirectory(tmp_path / "nothing")
    assert nothing.choose("latest") == CheckpointChoice(None, [])
    with pytest.raises(ResumeError, match="saved steps: none"):
        nothing.choose(3)
    assert not nothing.folder.exists()


def test_the_newest_good_one_before_a_step(archive: CheckpointDirectory):
    assert archive.newest_good(30) == CheckpointChoice(30, [])
    assert archive.newest_good(29) == CheckpointChoice(20, [])
    assert archive.newest_good(9) == CheckpointChoice(None, [])
    delete(archive.path(20) / "run.json")
    assert archive.newest_good(29) == CheckpointChoice(10, [(20, "run.json is missing")])


def test_later_checkpoints_are_set_aside_not_lost(archive: CheckpointDirectory):
    assert archive.set_aside_after(30) is None
    aside = archive.set_aside_after(10)
    assert aside == archive.folder / "set-aside-1"
    assert sorted(path.name for path in aside.iterdir()) == ["20", "30"]
    assert archive.steps() == [10]
    assert CheckpointDirectory(aside).choose("latest") == CheckpointChoice(30, [])
    shutil.copytree(aside / "20", archive.path(20))
    assert archive.set_aside_after(10) == archive.folder / "set-aside-2"


def test_damaged_ones_are_no_reason_to_delete_good_ones(archive: CheckpointDirectory):
    truncate(archive.path(30) / "run.json")
    archive.prune(Retention(2))
    assert archive.steps() == [10, 20, 30]
    archive.prune(Retention(1))
    assert archive.steps() == [20, 30]


def test_the_newest_stay_and_those_for_good():
    steps = [10, 20, 30, 40, 50]
    assert Retention().outdated(steps) == Retention(5).outdated(steps) == []
    assert Retention(2).outdated(steps) == [10, 20, 30]
    assert Retention(2, keep_every=20).outdated(steps) == [10, 30]


def test_some_stay_for_good(archive: CheckpointDirectory):
    archive.prune(Retention(1, keep_every=20))
    assert archive.steps() == [20, 30]


def test_what_is_half_deleted_does_not_count(
    archive: CheckpointDirectory, monkeypatch: pytest.MonkeyPatch
):
    """As if the process were killed after the first file."""

    def killed(path: Path) -> None:
        next(file for file in path.rglob("*") if file.is_file()).unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            archive.prune(Retention(2))
    assert archive.steps() == [20, 30]
    assert archive.choose("latest") == CheckpointChoice(30, [])
    assert len(list(archive.folder.iterdir())) == 3
    archive.remove_leftovers()
    assert len(list(archive.folder.iterdir())) == 2


def test_a_kill_while_they_are_set_aside_leaves_those_before(
    archive: CheckpointDirectory, monkeypatch: pytest.MonkeyPatch
):
    move = Path.rename

    def killed(path: Path, to: Path) -> Path:
        if path.name == "20":
            raise KeyboardInterrupt
        return move(path, to)

    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        archive.set_aside_after(0)
    assert archive.steps() == [10, 20]


def test_what_is_not_chomp_s_stays_as_it_is(archive: CheckpointDirectory, tmp_path: Path):
    """In a folder that is the user's own as well."""
    mine = ("unfinished-thesis/1.txt", "unfinished-7/7/params/1.txt", "2024/a.png", "99", "set-a/1")
    for name in mine:
        (archive.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (archive.folder / name).write_text("mine")
    (archive.folder / "unfinished-link").symlink_to(tmp_path)
    (archive.folder / "2025").symlink_to(archive.folder / "2024")
    (tmp_path / "empty").mkdir()
    (archive.folder / "2026").symlink_to(tmp_path / "empty")
    (archive.folder / "40").mkdir()  # a run that somebody has put there
    for name in ("run.json", "config_original.yaml"):
        (archive.folder / "40" / name).write_text("mine")
    assert archive.steps() == [10, 20, 30]
    assert archive.choose("latest") == CheckpointChoice(30, [])
    archive.remove_leftovers()
    archive.prune(Retention(2))
    archive.set_aside_after(20)
    archive.set_aside_after(0)
    assert all((archive.folder / name).read_text() == "mine" for name in mine)
    assert all((archive.folder / name).is_symlink() for name in ("unfinished-link", "2025", "2026"))
    assert (archive.folder / "40" / "run.json").exists()


@pytest.mark.parametrize("relative", [False, True])
def test_links_to_an_archive(archive: CheckpointDirectory, tmp_path: Path, relative: bool):
    for step in (10, 20):
        archive.path(step).rename(tmp_path / f"old-{step}")
        target = f"../old-{step}" if relative else tmp_path / f"old-{step}"
        archive.path(step).symlink_to(target)
    assert archive.good_steps() == [10, 20, 30]
    archive.prune(Retention(1))
    archive.remove_leftovers()
    assert archive.good_steps() == [10, 20, 30]
    aside = archive.set_aside_after(10)
    assert aside and CheckpointDirectory(aside).good_steps() == [20, 30]
    assert (archive.steps(), sorted(path.name for path in (tmp_path / "old-20").iterdir())[0]) == (
        [10],
        "manifest.json",
    )
    archive.path(10).unlink()
    archive.path(10).symlink_to(tmp_path / "gone")
    assert archive.newest_good() == CheckpointChoice(None, [(10, "manifest.json is missing")])
