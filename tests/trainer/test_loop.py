import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from chomp.errors import DataError, Interrupted
from chomp.system.signals import Signals
from chomp.trainer.callback import Callback, PendingWork, StepInfo
from chomp.trainer.callbacks.runner import CallbackRunner
from chomp.trainer.control import LocalControl
from chomp.trainer.loop import StopReason, TrainLoop
from chomp.trainer.step_timer import StepTimer
from chomp.trainer.stop_and_save import StopAndSaveRequests
from chomp.types import (
    Batch,
    BatchStats,
    LoadedBatch,
    Progress,
    SourceCount,
    StepMetrics,
    TrainState,
)

SIGTERM = 15


class Batches:
    """Batches of two targets each, that are counted as they are drawn."""

    def __init__(self, length: int | None = None, error: Exception | None = None):
        self.drawn, self._length, self._error = 0, length, error

    def wait(self, seconds: float) -> bool:
        return True

    def __next__(self) -> LoadedBatch:
        if self.drawn == self._length:
            raise self._error or StopIteration
        self.drawn += 1
        ids = np.full((1, 1, 4), self.drawn, np.int32)
        stats = BatchStats((SourceCount(2),), 4, 1, 0, 3, 0, (self.drawn,), self.drawn)
        return LoadedBatch(Batch(ids, ids, ids, ids > 0), stats)


def count(state: TrainState, batch: Batch) -> tuple[TrainState, StepMetrics]:
    """A step that sums what it sees."""
    total = state.params + batch.input_ids.sum()
    metrics = StepMetrics(total, total, jnp.asarray(2), jnp.asarray(0))
    return TrainState(total, (), state.step + 1, state.rejected, state.key), metrics


class Log:
    """Notes the steps that a row would tell of."""

    def __init__(self, calls: list[tuple[str, int]] | None = None):
        self.calls = [] if calls is None else calls

    def after_step(self, info: StepInfo) -> None:
        self.calls.append(("log", info.progress.step))

    at_end = after_step


class Call(Callback):
    """Notes its calls, or does what it is given."""

    def __init__(
        self,
        name: str,
        every: int,
        do: Callable[[StepInfo], Any],
        *,
        at_end: bool = False,
        at_stop: bool = False,
    ):
        super().__init__(every)
        self.name, self.do, self.at_end, self.at_stop = name, do, at_end, at_stop  # type: ignore

    def __call__(self, info: StepInfo) -> Any:
        return self.do(info)


class Loop:
    """Runs the real loop over counted batches."""

    def __init__(self):
        self.signals = Signals()
        self.pending = PendingWork()
        self.log = Log()

    def __call__(
        self,
        batches: Any,
        before: list[Callback],
        steps: int,
        *,
        after: tuple[Callback, ...] = (),
        start: int = 0,
        skipped: tuple[int, ...] = (),
    ) -> Any:
        state = TrainState(jnp.zeros(()), (), jnp.asarray(start), jnp.asarray(0), jnp.zeros(2))
        callbacks = CallbackRunner(before, self.log, after, steps=steps, pending=self.pending)
        control = LocalControl(batches, StopAndSaveRequests(self.signals))
        loop = TrainLoop(count, control, callbacks, StepTimer(), steps, skipped)
        return loop.run(state, Progress(step=start, batches=start, tokens_seen=2 * start))

    def stop_after(self, step: int) -> Callback:
        def stop(info: StepInfo) -> None:
            if info.progress.step == step:
                self.signals.hear(SIGTERM)

        return Call("stop", 1, stop)


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def calls() -> list[tuple[str, int]]:
    return []


@pytest.fixture
def call(calls: list[tuple[str, int]]) -> Callable[..., Callback]:
    def make(name: str, every: int, **keys: bool) -> Callback:
        return Call(name, every, lambda info: calls.append((name, info.progress.step)), **keys)

    return make


def test_callbacks_run_when_due_in_their_order_and_once_at_the_end(loop, call, calls):
    callbacks = [call("a", 3, at_end=True), call("b", 2), call("never", 0)]
    result = loop(Batches(), callbacks, 7)
    assert calls == [("b", 2), ("a", 3), ("b", 4), ("a", 6), ("b", 6), ("a", 7)]
    assert result.reason is StopReason.FINISHED
    calls.clear()
    loop(Batches(), callbacks, 6)
    assert calls.count(("a", 6)) == 1


def test_the_row_is_written_between_what_adds_to_it_and_what_follows(loop, call, calls):
    loop.log.calls = calls
    loop(Batches(), [call("evaluate", 2)], 2, after=(call("save", 2),))
    assert calls == [("log", 1), ("evaluate", 2), ("log", 2), ("save", 2)]


def test_counts_follow_what_was_drawn(loop):
    seen = []
    record = Call("record", 1, lambda info: seen.append((info.progress, int(info.state.params))))
    batches = Batches()
    result = loop(batches, [record], 5, start=3)
    assert batches.drawn == 2
    assert result.progress == Progress(5, 5, 10, docs_seen=2, docs_skipped=6)
    assert [(p.step, p.tokens_seen, total) for p, total in seen] == [(4, 8, 4), (5, 10, 12)]


def test_a_stop_comes_before_the_next_batch_is_drawn(loop, call, calls):
    batches = Batches()
    loop.log.calls = calls
    callbacks = [loop.stop_after(3), call("end", 5, at_end=True)]
    result = loop(batches, callbacks, 9, after=(call("save", 5, at_stop=True),))
    assert batches.drawn == 3
    assert result.reason is StopReason.STOPPED
    assert result.progress.step == 3
    assert calls == [("log", 1), ("log", 2), ("log", 3), ("save", 3)]


def test_a_stop_at_a_step_that_was_saved_does_not_save_twice(loop, call, calls):
    loop(Batches(), [loop.stop_after(3)], 9, after=(call("save", 3, at_stop=True),))
    assert calls == [("save", 3)]


def test_a_stop_before_the_first_step_does_nothing(loop, call, calls):
    loop.signals.hear(SIGTERM)
    result = loop(Batches(), [call("save", 1, at_stop=True, at_end=True)], 9)
    assert (calls, result.progress.step) == ([], 0)


def test_the_end_of_the_data_does_what_the_end_asks_for(loop, call, calls):
    loop.log.calls = calls
    evaluate, save = call("evaluate", 10, at_end=True), call("save", 2, at_end=True, at_stop=True)
    result = loop(Batches(length=2), [evaluate], 9, after=(save,))
    assert result.reason is StopReason.OUT_OF_DATA
    assert result.progress.step == 2
    # The log reports what the evaluation found; the save of this step is there already.
    assert calls[2:] == [("save", 2), ("evaluate", 2), ("log", 2)]


def test_a_data_error_saves_and_goes_on_to_the_user(loop, call, calls):
    with pytest.raises(DataError, match="line 7"):
        loop(Batches(3, DataError("line 7")), [call("save", 10, at_stop=True)], 9)
    assert calls == [("save", 3)]


def test_a_finished_run_draws_nothing(loop, call, calls):
    batches = Batches()
    result = loop(batches, [call("save", 1, at_end=True)], 5, start=5)
    assert (batches.drawn, calls, result.reason) == (0, [], StopReason.FINISHED)


def test_an_interrupted_callback_is_left_to_a_resume_with_those_after_it(loop, call, calls):
    def interrupt(info: StepInfo) -> None:
        raise Interrupted

    loop.log.calls = calls
    save = call("save", 10, at_stop=True)
    result = loop(Batches(), [Call("evaluate", 3, interrupt)], 3, after=(call("sample", 3), save))
    assert result.reason is StopReason.STOPPED
    assert calls == [("log", 1), ("log", 2), ("log", 3), ("save", 3)]
    assert loop.pending.callbacks == ["evaluate", "sample"]


def test_a_callback_without_data_ends_the_run_saved(loop, call, calls):
    def fail(info: StepInfo) -> None:
        raise DataError("the network is away")

    with pytest.raises(DataError, match="the network is away"):
        loop(Batches(), [], 9, after=(Call("sample", 2, fail), call("save", 10, at_stop=True)))
    assert (loop.pending.callbacks, calls) == (["sample"], [("save", 2)])


def test_what_a_resume_makes_up_for(loop, call, calls):
    """Only what is named, with the values that the row waited with."""
    loop.log.calls = calls
    evaluate = Call("evaluate", 5, lambda info: {"eval_loss": 1.5})
    runner = CallbackRunner(
        [evaluate, call("other", 1)], loop.log, [call("sample", 5)], steps=9, pending=loop.pending
    )
    state = TrainState(jnp.zeros(()), (), jnp.asarray(3), jnp.asarray(0), jnp.zeros(2))
    zero = jnp.zeros(())
    info = StepInfo(
        state, StepMetrics(*[zero] * 4), Progress(3), BatchStats((), 0, 0, 0, 0, 0, (), 0)
    )
    runner.make_up(info, ["evaluate", "sample"], {"loss": 2.0})
    assert loop.pending.row == {"loss": 2.0, "eval_loss": 1.5}
    assert calls == [("log", 3), ("sample", 3)]


def test_two_callbacks_of_one_class_are_both_called(loop, calls):
    class Mine(Callback):
        def __call__(self, info: StepInfo) -> None:
            calls.append((self.name, info.progress.step))

    loop(Batches(), [Mine(), Mine(2)], 2)
    assert calls == [("Mine", 1), ("Mine", 2), ("Mine", 2)]


def test_batches_to_leave_out_are_drawn_and_counted_but_not_trained_on(loop):
    seen: list[int] = []
    see = Call("see", 1, lambda info: seen.append(info.stats.hash))
    result = loop(Batches(), [see], 4, skipped=(1, 3))
    assert seen == [2, 4, 5, 6]
    assert result.progress == Progress(4, 6, 8, docs_seen=4, docs_skipped=12)


def test_a_stop_after_a_batch_left_out_saves_its_number(loop):
    """The data's place is after that batch, so the count of batches has to be."""
    saved: list[Progress] = []
    save = Call("save", 0, lambda info: saved.append(info.progress), at_stop=True)

    class StopsAfter3(Batches):
        def __next__(self) -> LoadedBatch:
            batch = super().__next__()
            if self.drawn == 3:
                loop.signals.hear(SIGTERM)
            return batch

    loop(StopsAfter3(), [save], 9, skipped=(3,))
    assert [(one.step, one.batches) for one in saved] == [(2, 3)]


def test_a_stop_is_heard_while_data_is_late(loop):
    class Late(Batches):
        waits = 0

        def wait(self, seconds: float) -> bool:
            self.waits += 1
            if self.waits >= 7:
                loop.signals.hear(SIGTERM)
            return self.drawn < 2

    batches = Late()
    result = loop(batches, [], 9)
    assert (result.reason, result.progress.step, batches.drawn) == (StopReason.STOPPED, 2, 2)


def test_the_last_collection_of_the_start_is_no_time_of_a_step(
    chomp: Any, config_file: Any, tmp_path: Path, read_rows: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("chomp.trainer.callbacks.checks.settle", lambda: time.sleep(3.0))
    assert chomp("train", config_file(), "--run-dir", tmp_path / "run").code == 0
    seconds = [row["step_time_s"] for row in read_rows(tmp_path / "run")]
    assert len(seconds) == 4
    assert max(seconds[1:]) < 2.0
