import json
import os
import stat
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from chomp.checkpoint.compatibility import changes
from chomp.run.heartbeat import Heartbeat, Phase
from chomp.run.record import EventKind, RunRecord, read_record
from chomp.run.recorder import RunRecorder
from chomp.system.console import Console


@pytest.fixture
def open_lineage(tmp_path: Path, console: Console) -> Callable[..., RunRecorder]:
    """Open the lineage of the test's run folder, and begin a start."""

    def start(config: Mapping[str, Any] | None = None) -> RunRecorder:
        recorder = RunRecorder(tmp_path / "run.json", tmp_path / "heartbeat", console)
        config = dict(config or {})
        recorder.start(time=100.0, versions={"jax": "1"}, config=config, compare=changes)
        return recorder

    return start


def on_disk(folder: Path) -> RunRecord:
    record = read_record(folder / "run.json")
    assert record is not None
    return record


def test_a_start_from_begin_to_end(tmp_path: Path, open_lineage: Any, told: list[str]):
    recorder = open_lineage()
    heartbeat = Heartbeat(tmp_path / "heartbeat", start=recorder.number)
    (start,) = on_disk(tmp_path).starts
    assert (start.number, start.pid, start.ended) == (1, os.getpid(), None)
    recorder.on_device("1 x cpu")
    recorder.event(EventKind.DIVERGED, step=4, loss=float("nan"))
    heartbeat.finished(5)
    recorder.end("finished", heartbeat.now())
    (start,) = on_disk(tmp_path).starts
    assert (start.device, start.ended, start.last_step) == ("1 x cpu", "finished", 5)
    (event,) = start.events
    assert event["kind"] == "diverged"
    assert event["loss"] == "nan"
    assert start.end_time is not None and event["time"] <= start.end_time
    assert on_disk(tmp_path) == recorder.record
    assert told == []
    assert sorted(os.listdir(tmp_path)) == ["heartbeat", "run.json"]


def test_the_next_start_completes_one_that_was_killed(tmp_path: Path, open_lineage: Any):
    first = open_lineage()
    heartbeat = Heartbeat(tmp_path / "heartbeat", start=first.number)
    heartbeat.enter(Phase.EVALUATING, 13)
    heartbeat.finished(12)
    second = open_lineage()
    second.resumed(10, [{"step": 12, "reason": "a file is missing"}])
    killed, now = on_disk(tmp_path).starts
    assert (killed.ended, killed.phase, killed.last_step) == ("killed", "evaluating", 12)
    assert killed.end_time is not None and killed.seconds["evaluating"] >= 0
    assert (now.number, now.checkpoint, now.from_step) == (2, 10, 10)
    assert now.fallbacks == [{"step": 12, "reason": "a file is missing"}]
    heartbeat = Heartbeat(tmp_path / "heartbeat", start=second.number)
    heartbeat.finished(20)
    second.end("stopped", heartbeat.now())
    assert on_disk(tmp_path).starts[1].replayed_steps == 2


def test_the_run_keeps_its_id_and_differences_are_recorded(tmp_path: Path, open_lineage: Any):
    first = open_lineage({"optim": {"lr": 0.1}})
    second = open_lineage({"optim": {"lr": 0.05}})
    third = open_lineage({"optim": {"lr": 0.05}})
    assert first.record.run == second.record.run == third.record.run
    _, changed, same = on_disk(tmp_path).starts
    assert changed.changes == [{"key": "optim.lr", "old": 0.1, "new": 0.05}]
    assert same.changes == []


def test_skipped_batches_are_for_good(tmp_path: Path, open_lineage: Any):
    recorder = open_lineage()
    recorder.rewind(50, 40, [47, 46])
    recorder.skip([3, 46])
    assert on_disk(tmp_path).skipped_batches == [3, 46, 47]
    resumed = open_lineage()
    assert resumed.skipped_batches == [3, 46, 47]
    (event,) = on_disk(tmp_path).starts[0].events
    assert (event["from_step"], event["to_step"], event["batches"]) == (50, 40, [47, 46])


def test_they_are_durable_before_the_file_takes_its_place(
    tmp_path: Path, open_lineage: Any, monkeypatch: pytest.MonkeyPatch
):
    """The content is synced, then the name changed, then the folder synced."""
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def record_fsync(descriptor: int) -> None:
        fsync(descriptor)
        folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        done.append("folder" if folder else "content")

    def record_replace(source: Path, target: Path) -> None:
        assert 77 in json.loads(Path(source).read_text())["skipped_batches"]
        replace(source, target)
        done.append("replaced")

    recorder = open_lineage()
    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "replace", record_replace)
    recorder.skip([77])
    assert done == ["content", "replaced", "folder"]


def test_a_broken_file_is_moved_aside_and_the_run_goes_on(
    tmp_path: Path, open_lineage: Any, told: list[str]
):
    for text in ("{half", "[]"):
        (tmp_path / "run.json").write_text(text)
        recorder = open_lineage()
        assert recorder.number == 1
        assert on_disk(tmp_path).run == recorder.record.run
    assert [(tmp_path / f"run.json.broken-{i}").read_text() for i in (1, 2)] == ["{half", "[]"]
    assert len(told) == 2
    assert "run.json.broken-1" in told[0] and "skipped" in told[0]


def test_a_file_that_can_t_be_written_is_a_warning_and_written_later(
    tmp_path: Path, open_lineage: Any, told: list[str]
):
    recorder = open_lineage()
    # Root may write to any folder, so the temporary file's name is taken.
    (tmp_path / "run.json.tmp").mkdir()
    recorder.skip([5])
    assert len(told) == 1
    assert "run.json can't be written (Is a directory)" in told[0]
    (tmp_path / "run.json.tmp").rmdir()
    recorder.event(EventKind.STOP, signal="SIGTERM")
    assert on_disk(tmp_path).skipped_batches == [5]
    assert len(told) == 1


def test_thousands_of_events_take_no_time_and_outlive_a_kill(tmp_path: Path, open_lineage: Any):
    first = open_lineage()
    start = time.monotonic()
    for number in range(3000):
        first.event(EventKind.DIVERGED, step=number)
    assert time.monotonic() - start < 5
    # Killed: another start finds them all, once, be the last line cut short.
    later = tmp_path / "run.events.jsonl"
    with later.open("ab") as file:
        file.write(later.read_bytes().splitlines(keepends=True)[-1] + b'{"run": "' + b"[" * 90_000)
    events = [event["step"] for event in on_disk(tmp_path).starts[0].events]
    assert events == list(range(3000))
    second = open_lineage()
    assert not later.exists()
    assert on_disk(tmp_path) == second.record
    assert len(second.record.starts[0].events) == 3000


def test_events_of_another_run_are_not_taken(tmp_path: Path, open_lineage: Any):
    first = open_lineage()
    for number in range(30):
        first.event(EventKind.SAVE, step=number)
    (tmp_path / "run.json").write_text("broken")
    second = open_lineage()
    assert second.record.starts[0].events == []
