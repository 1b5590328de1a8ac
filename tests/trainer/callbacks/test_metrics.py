import time
from collections.abc import Callable
from typing import Any

import pytest

from chomp.errors import DivergedError
from chomp.run.heartbeat import Phase
from chomp.tracking.tracker import NullTracker, Row
from chomp.trainer.callback import LogWindow, PendingWork, StepInfo
from chomp.trainer.callbacks.metrics import LogMetrics
from chomp.trainer.loss_monitor import LossMonitor, LossPolicy
from chomp.trainer.step_timer import StepTimer
from chomp.types import Progress

TOKENS = 2 * 2 * 64
"""Of a step of the small config."""


class Rows(NullTracker):
    """Keeps what is logged."""

    def __init__(self):
        self.rows: list[Row] = []
        self.steps: list[int] = []

    def log(self, row: Row) -> None:
        self.rows.append(row)

    def progress(self, step: int) -> None:
        self.steps.append(step)


class Logged:
    """The log of a run that begins after step `start`."""

    def __init__(self, make_run: Callable[..., Any], every: int, start: int = 0, **train: Any):
        train = {"log_every": every, "steps": 100} | train
        self.components = make_run(train=train, optim={"decay_steps": 50}).components
        self.kept, self.timer, self.pending = Rows(), StepTimer(), PendingWork()
        self.judged: list[int] = []
        monitor = LossMonitor(LossPolicy.of(self.components.config.train), (), 0, print, run="run")
        monitor.check = lambda: self.judged.append(len(self.kept.rows))
        self.monitor = monitor
        self.log = LogMetrics(
            *(self.components, self.kept, self.timer, monitor, self.pending),
            Progress(start, start, 10 * start),
            {"first_step_compile_time_s": 7.0},
        )

    def step(self, info: StepInfo, **row: Any) -> None:
        self.pending.row |= row
        with self.timer.waiting():
            pass
        self.log.after_step(info)


@pytest.fixture
def logged(make_run: Callable[..., Any]) -> Callable[..., Logged]:
    return lambda every, start=0, **train: Logged(make_run, every, start, **train)


def test_a_row_covers_the_window_since_the_last(logged: Any, step_info: Any):
    run = logged(3, start=4)
    run.timer.lap()
    for step in range(5, 10):
        time.sleep(0.02)
        if step == 6:
            with run.timer.paused(Phase.EVALUATING):
                time.sleep(0.8)
        run.step(step_info(step, tokens_seen=10 * step))
    assert run.kept.steps == [5, 6, 7, 8, 9]
    first, second = run.kept.rows
    assert (first["step"], second["step"]) == (6, 9)
    assert 0.02 <= first["step_time_s"] < 0.3
    assert 0.02 <= second["step_time_s"] < 0.3
    assert first["tokens_per_sec"] == pytest.approx(20 / (2 * first["step_time_s"]))
    assert second["tokens_per_sec"] == pytest.approx(30 / (3 * second["step_time_s"]))
    assert first["packing_utilization"] == 6 / TOKENS
    # The rate of the update that made the step: the ninth has count 8.
    rate = run.components.program.schedules["lr"]
    assert second["lr"] == pytest.approx(float(rate(8)))
    assert first["packing_mode"] == second["packing_mode"] == "sequential"
    assert "first_step_compile_time_s" in first
    assert "first_step_compile_time_s" not in second


def test_the_window_of_a_row_goes_on_after_a_resume(logged: Any, step_info: Any):
    before = logged(3)
    for step in (1, 2):
        before.step(step_info(step))
    assert before.pending.window == LogWindow(2, 12)
    after = logged(3, start=2)
    after.pending.window = before.pending.window
    after.step(step_info(3, tokens=8))
    [row] = after.kept.rows
    assert row["packing_utilization"] == (6 + 6 + 8) / (3 * TOKENS)
    assert after.pending.window == LogWindow()


def test_what_is_written_is_pending_no_longer(logged: Any, step_info: Any):
    run = logged(1)
    run.step(step_info(1), eval_loss=1.5)
    assert (run.kept.rows[0]["eval_loss"], run.pending.row) == (1.5, {})


def test_values_of_callbacks_make_a_row_and_so_does_the_last_step(logged: Any, step_info: Any):
    run = logged(100, steps=6)
    for step in range(1, 7):
        run.step(step_info(step), **({"eval_loss": 1.5} if step == 2 else {}))
    assert [row["step"] for row in run.kept.rows] == [2, 6]
    assert run.kept.rows[0]["eval_loss"] == 1.5
    assert "eval_loss" not in run.kept.rows[1]


def test_where_the_data_ends_there_is_a_whole_row(logged: Any, step_info: Any):
    run = logged(2)
    for step in (1, 2, 3):
        run.step(step_info(step))
    run.pending.row = {"eval_loss": 1.5}
    run.log.at_end(step_info(3))
    assert [row["step"] for row in run.kept.rows] == [2, 3]
    assert {"loss", "eval_loss"} <= set(run.kept.rows[1])
    run.log.at_end(step_info(3))
    assert len(run.kept.rows) == 2


def test_where_the_data_ends_after_a_row_only_news_are_told(logged: Any, step_info: Any):
    run = logged(1)
    run.step(step_info(1))
    run.log.at_end(step_info(1))
    assert len(run.kept.rows) == 1
    run.pending.row = {"eval_loss": 1.5}
    run.log.at_end(step_info(1))
    assert run.kept.rows[1] == {"step": 1, "eval_loss": 1.5}


def test_a_row_is_written_before_its_steps_are_judged(logged: Any, step_info: Any):
    run = logged(1)

    def refuse() -> None:
        raise DivergedError("no")

    run.monitor.check = refuse
    with pytest.raises(DivergedError):
        run.step(step_info(3))
    assert [row["step"] for row in run.kept.rows] == [3]


def test_a_row_that_waits_for_an_interrupted_evaluation_is_kept_whole(logged: Any, step_info: Any):
    run = logged(100)
    run.pending.callbacks.append("evaluate")
    run.step(step_info(2))
    assert run.kept.rows == []
    held = run.pending.row
    assert {"loss", "lr", "tokens_seen"} <= set(held)
    # After the resume: the evaluation has added its value, the step is the one that it starts at.
    resumed = logged(100, start=2)
    resumed.pending.row = held | {"eval_loss": 1.5}
    resumed.log.at_end(step_info(2))
    assert resumed.kept.rows == [held | {"eval_loss": 1.5}]
