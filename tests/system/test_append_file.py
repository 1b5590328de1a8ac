import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chomp.run.ledger import Ledger
from chomp.system.append_file import AppendFile
from chomp.system.console import Console
from chomp.tracking import JsonLines, log_to_file, open_console
from chomp.types import BatchStats, SourceCount


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 64 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a tmpfs can't be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(place: Path) -> Path:
    """Take all the room there is on a disk."""
    ballast = place / "ballast"
    with ballast.open("wb", buffering=0) as file, pytest.raises(OSError):
        while True:
            file.write(bytes(1 << 10))
    return ballast


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "lines"


def test_lines_are_there_at_once_behind_those_of_before(
    path: Path, told: list[str], console: Console
):
    for text in ("one\n", "two\n"):
        file = AppendFile(path, console)
        file.write(text)
        assert path.read_text().endswith(text)
        file.close()
    assert path.read_text() == "one\ntwo\n"
    assert told == []


def test_lines_that_fail_wait_and_are_written_in_their_order(
    path: Path, told: list[str], files_of_at_most: Any, console: Console
):
    file = AppendFile(path, console)
    lines = [f"{number:04}\n" for number in range(10)]
    with files_of_at_most(13):
        for line in lines[:6]:
            file.write(line)
        # A line may be cut short for a while, but nothing of it is lost.
        assert path.read_text() == "".join(lines)[:13]
        assert len(told) == 1
        assert str(path) in told[0]
        assert "File too large" in told[0]
    for line in lines[6:]:
        file.write(line)
    assert path.read_text() == "".join(lines)
    file.close()
    assert len(told) == 1


def test_close_writes_what_waits(
    path: Path, told: list[str], files_of_at_most: Any, console: Console
):
    file = AppendFile(path, console)
    with files_of_at_most(3):
        file.write("one\n")
        file.write("two\n")
    file.close()
    assert path.read_text() == "one\ntwo\n"


def test_close_tells_what_is_lost(
    path: Path, told: list[str], files_of_at_most: Any, console: Console
):
    file = AppendFile(path, console)
    with files_of_at_most(5):
        for line in ("one\n", "two\n", "three\n"):
            file.write(line)
        file.close()
    assert len(told) == 2
    assert "2 line(s) at its end are lost" in told[1]


@pytest.mark.parametrize("limit", range(0, 26))
def test_the_last_line_is_replaced_wherever_it_is(
    path: Path, told: list[str], limit: int, files_of_at_most: Any, console: Console
):
    """In the file, in memory, or partly in both."""
    file = AppendFile(path, console)
    with files_of_at_most(limit):
        for line in ("first\n", "second\n"):
            file.write(line)
        file.replace_last("second again\n")
        file.replace_last("2\n")
        file.write("third\n")
    file.close()
    assert path.read_text() == "first\n2\nthird\n"


def test_a_file_that_cannot_be_opened_is_opened_later(
    tmp_path: Path, told: list[str], console: Console
):
    obstacle = tmp_path / "new"
    obstacle.write_text("a file where a folder is needed")
    file = AppendFile(obstacle / "lines", console)
    file.write("one\n")
    assert len(told) == 1
    obstacle.unlink()
    file.write("two\n")
    file.close()
    assert (obstacle / "lines").read_text() == "one\ntwo\n"


def test_whatever_the_text_it_is_utf8(path: Path, told: list[str], console: Console):
    file = AppendFile(path, console)
    file.write(json.dumps("é\udcff", ensure_ascii=False) + "\n")
    file.close()
    assert json.loads(path.read_bytes().decode()) == "é\udcff"


def test_metrics_samples_and_ledger_outlast_a_full_disk(
    small_disk: Path, told: list[str], read_rows: Any, console: Console
):
    paths = [small_disk / f"{name}.jsonl" for name in ("metrics", "samples", "ledger")]
    files = JsonLines(paths[0], paths[1], console)
    ledger = Ledger(paths[2], {"digest": "x"}, 0, console)
    ballast = fill(small_disk)
    rows = [{"step": n, "loss": n / 7, "name": "x" * 100} for n in range(1, 101)]
    for row in rows:
        files.log(row)
        files.log({"step": row["step"], "eval_loss": 1.0})
        files.sample(row)
        ledger.record(
            row["step"], row["step"], BatchStats((SourceCount(3),), 6, 1, 0, 0, 0, (7,) * 20, 0xAB)
        )
    assert len(told) == 3
    assert all("No space left on device" in line for line in told)
    assert sum(path.stat().st_size for path in paths) < 5 * 4096
    ballast.unlink()
    files.close()
    ledger.close()
    assert read_rows(paths[0]) == [row | {"eval_loss": 1.0} for row in rows]
    assert read_rows(paths[1]) == rows
    assert [row["step"] for row in read_rows(paths[2])] == list(range(101))
    assert len(told) == 3


def test_log_lines_outlast_a_full_disk_without_a_word_on_the_console(
    small_disk: Path, told: list[str], capfd: pytest.CaptureFixture[str], console: Console
):
    root = logging.getLogger()
    before = root.handlers[:], root.level
    path = small_disk / "train.log"
    log_to_file(path, "INFO", console)
    try:
        ballast = fill(small_disk)
        for number in range(1000):
            logging.getLogger("someone.else").warning("line %d of many", number)
        assert len(told) == 1
        ballast.unlink()
        logging.getLogger("someone.else").warning("there is room")
        lines = path.read_text().splitlines()
        assert [line.rpartition(": ")[2] for line in lines[-1001:]] == [
            *(f"line {number} of many" for number in range(1000)),
            "there is room",
        ]
    finally:
        logging.captureWarnings(False)
        for handler in root.handlers:
            handler.close()
        root.handlers[:], root.level = before
    assert capfd.readouterr() == ("", "")


def test_a_run_whose_output_goes_to_a_full_disk_goes_on(
    small_disk: Path,
    config_file: Any,
    start_chomp: Any,
    tmp_path: Path,
    read_rows: Any,
    console: Console,
):
    with (small_disk / "out.log").open("w") as out:
        fill(small_disk)
        config, run = config_file(train={"steps": 200}), tmp_path / "run"
        process = start_chomp("train", config, "--run-dir", run, stdout=out)
        _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    assert read_rows(run)[-1]["step"] == 200


def test_the_console_is_heard_again_when_there_is_room(small_disk: Path):
    path = small_disk / "out.log"
    with path.open("w") as out:
        console = open_console(steps=3, use_rich=False, stream=out)
        ballast = fill(small_disk)
        console.message("before")
        ballast.unlink()
        console.message("behind")
        console.close()
        assert path.read_text() == "before\nbehind\n"


def test_a_run_goes_on_while_the_disk_is_full(
    small_disk: Path, config_file: Any, chomp: Any, tmp_path: Path
):
    elsewhere = {"checkpoint": {"root_dir": str(tmp_path / "checkpoints")}}
    run = small_disk / "run"
    done = chomp("train", config_file(train={"steps": 200}, **elsewhere), "--run-dir", run)
    assert done.code == 0, done.err
    assert done.err == ""
    assert "finished   after step 200 of 200" in done.out
    assert os.statvfs(small_disk).f_bavail == 0
    for name in ("metrics.jsonl", "ledger.jsonl"):
        warnings = [line for line in done.out.splitlines() if f"{name} can't be written" in line]
        assert len(warnings) == 2
        assert warnings[0].endswith("until there is room")
        assert "at its end are lost, but for those that the newest checkpoint has" in warnings[1]


@pytest.mark.parametrize("stream", ["/dev/stdout", "/dev/stderr", "/dev/fd/1", "/proc/self/fd/2"])
def test_the_log_may_go_to_a_standard_stream(tmp_path: Path, stream: str):
    script = (
        "import logging, pathlib, sys; from chomp.tracking import log_to_file, open_console\n"
        f"log_to_file(pathlib.Path({stream!r}), 'INFO', open_console(steps=1, use_rich=False))\n"
        "for line in ('one', 'two'):\n"
        "    logging.info(line)\n"
        "    print(line, file=sys.stdout, flush=True)\n"
    )
    command = [sys.executable, "-c", script]
    ours, theirs = socket.socketpair()
    with ours, theirs, (tmp_path / "file").open("w") as file:
        for output in (file, subprocess.PIPE, theirs):
            done = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=True)
            text = done.stdout or (ours.recv(1 << 16) if output is theirs else b"")
            lines = (text.decode() or (tmp_path / "file").read_text()).splitlines()
            assert [line.rpartition(" ")[2] for line in lines] == ["one", "one", "two", "two"]
            assert [" INFO root: " in line for line in lines] == [True, False] * 2
