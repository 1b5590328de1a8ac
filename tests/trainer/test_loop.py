import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from chomp.errors import DataError, Interrupted
from chomp.trainer import Callback, StepTimer, StopReason, run_loop
from chomp.types import Batch, BatchStats, LoadedBatch, Progress, StepMetrics, TrainState


class Stream:
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
        stats = BatchStats(2, 4, 1, 0, 3, 0, (self.drawn,), self.drawn)
        return LoadedBatch(Batch(ids, ids, ids, ids > 0), stats)


def count(state: TrainState, batch: Batch) -> tuple[TrainState, StepMetrics]:
    """A step that sums what it sees."""
    total = state.params + batch.input_ids.sum()
    metrics = StepMetrics(total, total, jnp.asarray(2), jnp.asarray(0))
    return TrainState(total, (), state.step + 1, state.rejected, state.key), metrics


@pytest.fixture
def loop() -> Callable[..., Any]:
    def run(stream: Stream, actions: Any, steps: int, start: int = 0, stop_after: int = 10**9):
        state = TrainState(jnp.zeros(()), (), jnp.asarray(start), jnp.asarray(0), jnp.zeros(2))
        return run_loop(
            count,
            state,
            Progress(step=start, batches=start, tokens_seen=2 * start),
            stream,
            actions,
            steps=steps,
            should_stop=lambda: stream.drawn >= stop_after,
            stopwatch=StepTimer(),
        )

    return run


@pytest.fixture
def calls() -> list[tuple[str, int]]:
    return []


@pytest.fixture
def action(calls: list[tuple[str, int]]) -> Callable[..., Callback]:
    def make(name: str, every: int, **keys: bool) -> Callback:
        return Callback(name, lambda m: calls.append((name, m.progress.step)), every, **keys)

    return make


def test_actions_run_when_due_in_their_order_and_once_at_the_end(loop, action, calls):
    actions = [action("a", 3, at_end=True), action("b", 2), action("never", 0)]
    result = loop(Stream(), actions, 7)
    assert calls == [("b", 2), ("a", 3), ("b", 4), ("a", 6), ("b", 6), ("a", 7)]
    assert result.ending is StopReason.FINISHED
    calls.clear()
    loop(Stream(), actions, 6)
    assert calls.count(("a", 6)) == 1


def test_counts_follow_what_was_drawn(loop):
    seen = []
    record = Callback("record", lambda m: seen.append((m.progress, int(m.state.params))), 1)
    stream = Stream()
    result = loop(stream, [record], 5, start=3)
    assert stream.drawn == 2
    assert result.progress == Progress(5, 5, 10, docs_seen=2, docs_skipped=6)
    assert [(p.step, p.tokens_seen, total) for p, total in seen] == [(4, 8, 4), (5, 10, 12)]


def test_a_stop_comes_before_the_next_batch_is_drawn(loop, action, calls):
    stream = Stream()
    actions = [action("log", 1, at_end=True, reports=True), action("end", 5, at_end=True)]
    result = loop(stream, [*actions, action("save", 5, at_stop=True)], 9, stop_after=3)
    assert stream.drawn == 3
    assert result.ending is StopReason.STOPPED
    assert result.progress.step == 3
    assert calls == [("log", 1), ("log", 2), ("log", 3), ("save", 3)]


def test_a_stop_at_a_step_that_was_saved_does_not_save_twice(loop, action, calls):
    loop(Stream(), [action("save", 3, at_stop=True)], 9, stop_after=3)
    assert calls == [("save", 3)]


def test_a_stop_before_the_first_step_does_nothing(loop, action, calls):
    result = loop(Stream(), [action("save", 1, at_stop=True, at_end=True)], 9, stop_after=0)
    assert (calls, result.progress.step) == ([], 0)


def test_the_end_of_the_data_runs_what_the_end_asks_for(loop, action, calls):
    actions = [
        action("evaluate", 10, at_end=True),
        action("log", 1, at_end=True, reports=True),
        action("save", 2, at_end=True, at_stop=True),
    ]
    result = loop(Stream(length=2), actions, 9)
    assert result.ending is StopReason.OUT_OF_DATA
    assert result.progress.step == 2
    # The log reports what the evaluation found; the save of this step is there already.
    assert calls[2:] == [("save", 2), ("evaluate", 2), ("log", 2)]


def test_a_data_error_saves_and_goes_on_to_the_user(loop, action, calls):
    with pytest.raises(DataError, match="line 7"):
        loop(Stream(3, DataError("line 7")), [action("save", 10, at_stop=True)], 9)
    assert calls == [("save", 3)]


def test_a_finished_run_draws_nothing(loop, action, calls):
    stream = Stream()
    result = loop(stream, [action("save", 1, at_end=True)], 5, start=5)
    assert (stream.drawn, calls, result.ending) == (0, [], StopReason.FINISHED)


def test_an_interrupted_action_is_left_to_a_resume_with_those_behind_it(loop, action, calls):
    def interrupt(moment: Any) -> None:
        raise Interrupted

    seen: list[list[str]] = []
    stopping = [False]

    def save(moment: Any) -> None:
        calls.append(("save", moment.progress.step))
        seen.append(moment.pending)
        stopping[0] = True

    actions = [
        Callback("evaluate", interrupt, 3),
        action("log", 1, reports=True),
        action("sample", 3),
        Callback("save", save, 10, at_stop=True),
    ]
    result = loop(Stream(), actions, 3)
    assert result.ending is StopReason.STOPPED
    assert calls == [("log", 1), ("log", 2), ("log", 3), ("save", 3)]
    assert seen == [["evaluate", "sample"]]


def test_an_action_without_data_ends_the_run_saved(loop, action, calls):
    def fail(moment: Any) -> None:
        raise DataError("the network is away")

    pending: list[str] = []
    save = Callback("save", lambda m: pending.extend(m.pending), 10, at_stop=True)
    with pytest.raises(DataError, match="the network is away"):
        loop(Stream(), [Callback("sample", fail, 2), save], 9)
    assert pending == ["sample"]


def test_an_action_that_is_asked_for_comes_besides_its_steps(loop, calls):
    asked = [False]

    def save(moment: Any) -> None:
        calls.append(("save", moment.progress.step))
        asked[0] = False

    def ask(moment: Any) -> None:
        asked[0] = moment.progress.step == 3

    loop(Stream(), [Callback("ask", ask, 1), Callback("save", save, 5, asked=lambda: asked[0])], 6)
    assert calls == [("save", 3), ("save", 5)]


def test_batches_to_leave_out_are_drawn_and_counted_but_not_trained_on():
    stream, seen = Stream(), []
    state = TrainState(jnp.zeros(()), (), jnp.asarray(0), jnp.asarray(0), jnp.zeros(2))
    result = run_loop(
        count,
        state,
        Progress(),
        stream,
        [Callback("see", lambda m: seen.append(m.stats.hash), 1)],
        steps=4,
        should_stop=lambda: False,
        stopwatch=StepTimer(),
        skipped={1, 3},
    )
    assert seen == [2, 4, 5, 6]
    assert result.progress == Progress(4, 6, 8, docs_seen=4, docs_skipped=12)


def test_a_stop_behind_a_batch_left_out_saves_its_number():
    """The data's place is behind that batch, so the count of batches has to be."""
    stream, saved = Stream(), []
    state = TrainState(jnp.zeros(()), (), jnp.asarray(0), jnp.asarray(0), jnp.zeros(2))
    run_loop(
        count,
        state,
        Progress(),
        stream,
        [Callback("save", lambda m: saved.append(m.progress), 0, at_stop=True)],
        steps=9,
        should_stop=lambda: stream.drawn >= 3,
        stopwatch=StepTimer(),
        skipped={3},
    )
    assert [(one.step, one.batches) for one in saved] == [(2, 3)]


def test_a_stop_is_heard_while_data_is_late(loop):
    class Late(Stream):
        waits = 0

        def wait(self, seconds: float) -> bool:
            self.waits += 1
            return self.drawn < 2

    stream = Late()
    state = TrainState(jnp.zeros(()), (), jnp.asarray(0), jnp.asarray(0), jnp.zeros(2))
    result = run_loop(
        *(count, state, Progress(), stream, []),
        steps=9,
        should_stop=lambda: stream.waits >= 7,
        stopwatch=StepTimer(),
    )
    assert (result.ending, result.progress.step, stream.drawn) == (StopReason.STOPPED, 2, 2)


def test_the_last_collection_of_the_start_is_no_time_of_a_step(
    chomp: Any, config_file: Any, tmp_path: Path, read_rows: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("chomp.trainer.callbacks.build.settle", lambda: time.sleep(3.0))
    assert chomp("train", config_file(), "--run-dir", tmp_path / "run").code == 0
    seconds = [row["step_time_s"] for row in read_rows(tmp_path / "run")]
    assert len(seconds) == 4
    assert max(seconds[1:]) < 2.0
