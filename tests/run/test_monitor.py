import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chomp.checkpoint.compatibility import changes
from chomp.errors import DivergedError, ResumeError
from chomp.run.heartbeat import Phase, read_heartbeat
from chomp.run.monitor import RunMonitor
from chomp.run.record import Attempt, read_record
from chomp.system.console import Console


@pytest.fixture
def open_history(tmp_path: Path, console: Console) -> Callable[..., RunMonitor]:
    """Open a history, and begin a start."""

    def start(**values: Any) -> RunMonitor:
        known = {
            "record": tmp_path / "run.json",
            "heartbeat": tmp_path / "heartbeat",
            "log_file": None,
            "watchdog_seconds": 0,
            "started": time.perf_counter(),
            "console": console,
        }
        history = RunMonitor(**(known | values))
        history.begin(versions={}, config={}, compare=changes)
        return history

    return start


def starts(folder: Path) -> list[Attempt]:
    record = read_record(folder / "run.json")
    assert record is not None
    return record.starts


def test_an_end_is_recorded_when_all_is_closed(tmp_path: Path, open_history: Any):
    with open_history(started=time.perf_counter() - 2) as history:
        history.heartbeat.enter(Phase.TRAINING, 1)
        history.heartbeat.finished(1)
        history.end("finished")
        assert history.heartbeat.now().phase is Phase.CLOSING
        assert starts(tmp_path)[0].ended is None
        time.sleep(0.05)
    (start,) = starts(tmp_path)
    assert (start.ended, start.last_step, start.error) == ("finished", 1, None)
    assert start.seconds["starting"] >= 2
    assert start.seconds["closing"] >= 0.05
    assert start.end_time is not None
    assert sum(start.seconds.values()) == pytest.approx(start.end_time - start.time, abs=1)
    beat = read_heartbeat(tmp_path / "heartbeat")
    assert beat is not None and beat.phase is Phase.ENDED


@pytest.mark.parametrize(
    ("error", "how"), [(DivergedError("no number"), "failed"), (KeyError("oops"), "crashed")]
)
def test_an_error_is_recorded_even_if_an_end_was_announced(
    tmp_path: Path, open_history: Any, error: Exception, how: str
):
    with pytest.raises(type(error)), open_history() as history:
        history.end("finished")
        raise error
    (start,) = starts(tmp_path)
    assert start.ended == how
    assert start.error == f"{type(error).__name__}: {error}"


def test_a_start_that_is_refused_leaves_no_trace(
    tmp_path: Path, open_history: Any, told: list[str], console: Console
):
    with open_history():
        pass
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    names = {"record": tmp_path / "run.json", "heartbeat": tmp_path / "heartbeat"}
    refused = RunMonitor(
        **names, log_file=None, watchdog_seconds=0.1, started=time.perf_counter(), console=console
    )
    with pytest.raises(ResumeError), refused:
        deadline = time.monotonic() + 20
        while not told:  # the watchdog looks at it already
            assert time.monotonic() < deadline
            time.sleep(0.01)
        raise ResumeError("another run")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_resume_continues_the_counts(tmp_path: Path, open_history: Any):
    with open_history() as history:
        history.heartbeat.finished(9)
    with open_history() as history:
        history.resumed(6)
    first, second = starts(tmp_path)
    assert (first.last_step, second.from_step, second.last_step) == (9, 6, 6)


def test_goodput_counts_up_to_now(open_history: Any):
    with open_history() as history:
        history.heartbeat.enter(Phase.TRAINING, 1)
        time.sleep(0.1)
        goodput = history.goodput()
    assert goodput.seconds["steps"] >= 0.1
    assert goodput.seconds["other"] < 1


def test_stalls_are_events(tmp_path: Path, open_history: Any, told: list[str]):
    with open_history(watchdog_seconds=0.1) as history:
        history.heartbeat.enter(Phase.WAITING, 3)
        deadline = time.monotonic() + 20
        while not starts(tmp_path)[0].events:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    event = starts(tmp_path)[0].events[0]
    assert (event["kind"], event["phase"], event["step"]) == ("stall", "waiting for data", 3)
    assert "waiting for data, step 3: no progress" in told[0]


def test_without_a_heartbeat_file_the_user_is_told(
    tmp_path: Path, open_history: Any, told: list[str]
):
    with open_history(heartbeat=tmp_path / "missing" / "heartbeat"):
        pass
    (line,) = told
    assert line.startswith("warning: ") and "can't tell where" in line
