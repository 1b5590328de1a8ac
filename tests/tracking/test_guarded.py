"""Trackers that fail: the run has its rows, and its user one warning."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chomp.config.registry import TRACKERS
from chomp.errors import ConfigError
from chomp.tracking import NullTracker, TrackedRun, register_tracker
from chomp.tracking.guarded import BackgroundTracker, GuardedTracker


class Broken(NullTracker):
    """Fails at its second row, as a library does that finds no network, and again at its end."""

    def __init__(self, run: TrackedRun | None = None):
        self.rows: list[int] = []

    def log(self, row: dict[str, Any]) -> None:
        if row["step"] == 2:
            raise ConnectionError("the service\nis away")
        self.rows.append(row["step"])

    def close(self) -> None:
        raise OSError("still away")


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Broken]]:
    """Register it; the ones that were made."""
    made: list[Broken] = []
    monkeypatch.setattr(TRACKERS, "_registered", {})

    def make(run: TrackedRun) -> Broken:
        made.append(Broken(run))
        return made[-1]

    register_tracker("broken", make)
    yield made


def test_a_tracker_that_fails_ends_no_run(
    chomp: Any, config_file: Any, read_rows: Any, tmp_path: Path, broken: list[Broken]
):
    config = config_file(logging={"trackers": ["broken"]})
    done = chomp("train", config, "--run-dir", tmp_path / "run")
    assert done.code == 0, done.err
    assert [row["step"] for row in read_rows(tmp_path / "run")] == [1, 2, 3, 4]
    assert broken[0].rows == [1, 3, 4]
    warning = "tracker broken: ConnectionError: the service is away; the run goes on"
    assert (done.out + done.err).count("tracker broken") == 1
    assert warning in done.out + done.err
    assert "still away" in (tmp_path / "run" / "train.log").read_text()


def test_what_a_service_is_slow_to_take_keeps_nobody_waiting(
    console: Any, told: list[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("chomp.tracking.guarded.ANSWER_SECONDS", 0.2)
    answers = threading.Event()

    class Slow(Broken):
        def log(self, row: dict[str, Any]) -> None:
            answers.wait()

    start = time.monotonic()
    tracker = BackgroundTracker("slow", Slow, console)
    for step in range(3):
        tracker.log({"step": step})
    assert time.monotonic() - start < 0.2
    tracker.close()
    answers.set()
    assert (
        len(told) == 1 and "tracker slow: no answer in 0 s; it lacks the last 3 report" in told[0]
    )


def test_in_the_background_the_reports_come_in_their_order(console: Any, told: list[str]):
    made: list[Broken] = []

    def make() -> Broken:
        made.append(Broken())
        return made[0]

    tracker = BackgroundTracker("broken", make, console)
    for step in (1, 2, 3):
        tracker.log({"step": step})
    tracker.close()
    assert made[0].rows == [1, 3]
    assert len(told) == 1 and "ConnectionError: the service is away" in told[0]


def refusing() -> Broken:
    raise PermissionError("no login")


def never() -> Broken:
    threading.Event().wait(5)
    return Broken()


@pytest.mark.parametrize(
    ("make", "message"), [(refusing, "PermissionError: no login"), (never, "no answer in 0 s")]
)
def test_a_service_that_refuses_is_a_clear_message(
    no_lines: Any, monkeypatch: pytest.MonkeyPatch, make: Callable[[], Broken], message: str
):
    monkeypatch.setattr("chomp.tracking.guarded.ANSWER_SECONDS", 0.1)
    with pytest.raises(ConfigError, match=f"logging.trackers: theirs: .*{message}"):
        BackgroundTracker("theirs", make, no_lines)


def test_every_method_is_guarded(console: Any, told: list[str]):
    class Nothing(NullTracker):
        def __getattribute__(self, name: str) -> Any:
            raise ValueError(name)

    tracker = GuardedTracker("nothing", Nothing(), console)
    tracker.log({"step": 1})
    tracker.sample({"step": 1})
    tracker.progress(1)
    tracker.message("a line")
    tracker.close()
    assert len(told) == 1
