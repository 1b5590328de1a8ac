import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chomp.system.append_file import AppendFile
from chomp.system.console import Console
from chomp.tracking import JsonLines, keep_rows_up_to, restore_lines


def row(step: int, **more: Any) -> str:
    return json.dumps({"step": step} | more) + "\n"


class Disk:
    """A file that takes only so many bytes, whatever the lines are."""

    def __init__(self, path: Path):
        self.path, self.file = path, AppendFile(path, Console())

    def write_some(self, text: str, room: int) -> None:
        """Write as on a disk that has so much room, in the middle of a line maybe."""

        class Full:
            def __init__(self, real: Any):
                self.real, self.room = real, room

            def write(self, data: Any) -> int:
                if not self.room:
                    raise OSError(28, "No space left on device")
                taken = self.real.write(bytes(data[: self.room]))
                self.room -= taken
                return taken

            def __getattr__(self, name: str) -> Any:
                return getattr(self.real, name)

        real = self.file._file
        self.file._file = Full(real)  # type: ignore[assignment]
        self.file.write(text)
        self.file._file = real


@settings(max_examples=200, deadline=None)
@given(
    rooms=st.lists(st.integers(0, 30), min_size=1, max_size=8),
    later=st.integers(0, 60),
    replaced=st.booleans(),
    again=st.integers(1, 3),
)
def test_every_line_of_the_checkpoint_is_there_after_a_kill(
    tmp_path_factory: pytest.TempPathFactory,
    rooms: list[int],
    later: int,
    replaced: bool,
    again: int,
    no_lines: Console,
):
    """Wherever the disk was full, and whatever was written after the save before the kill."""
    path = tmp_path_factory.mktemp("disk") / "rows.jsonl"
    disk = Disk(path)
    truth = [row(step, text="é\u2028") for step in range(1, len(rooms) + 1)]
    for text, room in zip(truth, rooms, strict=True):
        disk.write_some(text, room)
    if replaced:
        truth[-1] = row(len(rooms), merged=True)
        disk.file._file, real = None, disk.file._file
        disk.file._path = path.parent / "nowhere" / "x"
        disk.file._path.parent.write_text("")
        disk.file.replace_last(truth[-1])
        disk.file._file, disk.file._path = real, path
    kept = json.loads(json.dumps(disk.file.tail().as_values()))
    disk.write_some(row(99), later)  # behind the checkpoint
    # Killed: what waits in memory is gone.
    for _ in range(again):
        keep_rows_up_to(len(rooms), path)
        found = restore_lines(path, kept)
        assert found.lost == 0
        file = AppendFile(path, no_lines, found.there)
        for text in found.lines:
            file.write(text)
        assert file.tail().lines == len(rooms)
        file.close()
        assert path.read_text("utf-8") == "".join(truth)


def test_what_nobody_has_is_counted(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_text(row(1) + row(3))
    kept = {"lines": 7, "surplus": 0, "waiting": [row(6), row(7)]}
    found = restore_lines(path, kept)
    assert (found.lines, found.there, found.lost) == ([row(6), row(7)], 2, 3)
    found = restore_lines(tmp_path / "gone.jsonl", kept)
    assert (len(found.lines), found.there, found.lost) == (2, 0, 5)
    assert restore_lines(path, None) == ([], 2, 0)


def test_a_row_that_has_grown_since_is_not_written_twice(tmp_path: Path, no_lines: Console):
    path = tmp_path / "metrics.jsonl"
    lines = JsonLines(path, tmp_path / "samples.jsonl", no_lines)
    for step in (1, 2):
        lines.log({"step": step, "loss": 1.0})
    kept = lines.tails()["metrics"].as_values() | {"waiting": [row(1, loss=1.0), row(2, loss=1.0)]}
    lines.log({"step": 2, "eval_loss": 2.0})
    assert restore_lines(path, kept).lines == []


def test_pipes_and_links_are_refused(
    tmp_path: Path, no_lines: Console, told: list[str], console: Console
):
    import os

    from chomp.errors import ConfigError

    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="pipe"):
        JsonLines(tmp_path / "pipe", tmp_path / "samples.jsonl", no_lines)
    mine = tmp_path / "mine"
    mine.write_text("mine")
    (tmp_path / "ledger.jsonl").symlink_to(mine)
    AppendFile(tmp_path / "ledger.jsonl", console).write("x\n")
    assert "can't be written" in told[0]
    (tmp_path / "rows.jsonl").write_text(row(1) + row(2))
    (tmp_path / "rows.jsonl.tmp").symlink_to(mine)
    keep_rows_up_to(1, tmp_path / "rows.jsonl")
    assert mine.read_text() == "mine"
