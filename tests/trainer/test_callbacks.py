import math
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chomp.errors import DivergedError
from chomp.trainer import Evaluate, LogMetrics, LogWindow, SaveCheckpoint, StepInfo, StepTimer
from chomp.trainer.components import build_components
from chomp.trainer.program import compile_loss
from chomp.types import BatchStats, Progress, StepMetrics, TrainState


class Rows:
    """Keeps what is logged."""

    def __init__(self):
        self.rows: list[dict[str, Any]] = []
        self.steps: list[int] = []

    def log(self, row: dict[str, Any]) -> None:
        self.rows.append(row)

    def progress(self, step: int) -> None:
        self.steps.append(step)


def moment(step: int, tokens_seen: int = 0, rejected: int = 0, **row: Any) -> StepInfo:
    value = jnp.asarray(2.0)
    metrics = StepMetrics(value, value, jnp.asarray(3), jnp.asarray(rejected))
    state = TrainState((), (), jnp.asarray(step), jnp.asarray(rejected), jnp.zeros(2))
    stats = BatchStats(3, 6, 1, 0, 0, 0, (), 0xAB)
    return StepInfo(state, metrics, Progress(step, step, tokens_seen), stats, row)


@pytest.fixture
def kept() -> Rows:
    return Rows()


@pytest.fixture
def stopwatch() -> StepTimer:
    return StepTimer()


@pytest.fixture
def log(kept: Rows, stopwatch: StepTimer) -> Callable[..., LogMetrics]:
    def utilization(step_seconds: float) -> dict[str, float]:
        time.sleep(0 if kept.rows else 0.8)  # the first time it measures
        return {"mfu": 0.01 / step_seconds}

    def make(
        every: int,
        *,
        start: int = 0,
        steps: int = 100,
        window: tuple[int, int] = (0, 0),
        check: Any = lambda: None,
    ) -> Any:
        action = LogMetrics(
            kept,
            stopwatch,
            every=every,
            steps=steps,
            progress=Progress(start, start, 10 * start),
            window=LogWindow(*window),
            rates={"lr": lambda count: jnp.asarray(0.5 * (count + 1))},
            constants={"packing_mode": "bin"},
            first_row={"first_step_compile_time_s": 7.0},
            row_tokens=8,
            memory=lambda: {"peak_memory_gb": 1.0},
            utilization=utilization,
            read_retries=lambda: 0,
            check=check,
        )
        seen = [start]

        def act(moment: StepInfo) -> None:
            if moment.progress.step != seen[-1]:
                seen.append(moment.progress.step)
                with stopwatch.waiting():
                    pass
            action(moment)

        return act

    return make


def test_a_row_covers_the_window_since_the_last(log: Any, kept: Rows, stopwatch: StepTimer):
    action = log(3, start=4)
    moments = {step: moment(step, tokens_seen=10 * step) for step in range(5, 10)}
    stopwatch.lap()
    for step in moments:
        time.sleep(0.02)
        if step == 6:
            with stopwatch.paused("evaluating"):
                time.sleep(0.8)
        action(moments[step])
    assert kept.steps == [5, 6, 7, 8, 9]
    first, second = kept.rows
    assert (first["step"], second["step"]) == (6, 9)
    assert 0.02 <= first["step_time_s"] < 0.3
    assert 0.02 <= second["step_time_s"] < 0.3
    assert first["tokens_per_sec"] == pytest.approx(20 / (2 * first["step_time_s"]))
    assert second["tokens_per_sec"] == pytest.approx(30 / (3 * second["step_time_s"]))
    assert first["mfu"] * first["step_time_s"] == pytest.approx(0.01)
    assert first["packing_utilization"] == 6 / 8
    # The rate of the update that made the step: the ninth has count 8.
    assert second["lr"] == 4.5
    assert first["packing_mode"] == second["packing_mode"] == "bin"
    assert "first_step_compile_time_s" in first
    assert "first_step_compile_time_s" not in second


def test_a_batch_left_out_is_no_step_of_a_row(log: Any, kept: Rows, stopwatch: StepTimer):
    action = log(2)
    action(moment(1))
    with stopwatch.waiting():  # for the batch that isn't trained on
        pass
    action(moment(2))
    [row] = kept.rows
    assert row["packing_utilization"] == 2 * 6 / (2 * 8)


def test_the_window_of_a_row_goes_on_after_a_resume(log: Any, kept: Rows):
    before = log(3)
    last = moment(2)
    for one in (moment(1), last):
        before(one)
    assert last.window == LogWindow(2, 12)
    after = log(3, start=2, window=last.window)
    last = moment(3)
    last.stats = last.stats._replace(tokens=8)
    after(last)
    [row] = kept.rows
    assert row["packing_utilization"] == (6 + 6 + 8) / (3 * 8)
    assert last.window == LogWindow()


def test_what_is_written_is_no_longer_in_the_moment(log: Any, kept: Rows):
    action = log(1)
    last = moment(1, eval_loss=1.5)
    action(last)
    assert (kept.rows[0]["eval_loss"], last.row) == (1.5, {})
    # A sample behind it is interrupted: a save then must not keep a row that is there already.
    last.pending.append("sample")
    action(last)
    assert (len(kept.rows), last.row) == (1, {})


def test_other_actions_values_make_a_row_and_so_does_the_last_step(log: Any, kept: Rows):
    action = log(100, steps=6)
    for step in range(1, 7):
        action(moment(step, **({"eval_loss": 1.5} if step == 2 else {})))
    assert [row["step"] for row in kept.rows] == [2, 6]
    assert kept.rows[0]["eval_loss"] == 1.5
    assert "eval_loss" not in kept.rows[1]


def test_where_the_data_ends_there_is_a_whole_row(log: Any, kept: Rows):
    action = log(2)
    for step in (1, 2, 3):
        action(moment(step))
    ended = moment(3, eval_loss=1.5)
    action(ended)
    assert [row["step"] for row in kept.rows] == [2, 3]
    assert {"loss", "eval_loss"} <= set(kept.rows[1])
    action(ended)
    assert len(kept.rows) == 2


def test_where_the_data_ends_behind_a_row_only_news_are_told(log: Any, kept: Rows):
    action = log(1)
    action(moment(1))
    action(moment(1))
    assert len(kept.rows) == 1
    action(moment(1, eval_loss=1.5))
    assert kept.rows[1] == {"step": 1, "eval_loss": 1.5}


def test_a_row_is_written_before_its_steps_are_judged(log: Any, kept: Rows):
    def refuse() -> None:
        raise DivergedError("no")

    with pytest.raises(DivergedError):
        log(1, check=refuse)(moment(3))
    assert [row["step"] for row in kept.rows] == [3]


def test_a_state_is_judged_before_it_is_saved(stopwatch: StepTimer):
    order: list[str] = []
    save = SaveCheckpoint(
        lambda m: order.append("save"), stopwatch, check=lambda: order.append("check")
    )
    save(moment(1))
    assert order == ["check", "save"]


def test_a_row_that_waits_for_an_interrupted_evaluation_is_kept_whole(log: Any, kept: Rows):
    action = log(100)
    held = moment(2)
    held.pending.append("evaluate")
    action(held)
    assert kept.rows == []
    assert {"loss", "lr", "tokens_seen"} <= set(held.row)
    # After the resume: the evaluation has added its value, the step is the one that it starts at.
    resumed = log(100, start=2)
    again = moment(2)
    again.row.update(held.row | {"eval_loss": 1.5})
    resumed(again)
    assert kept.rows == [held.row | {"eval_loss": 1.5}]


@pytest.mark.parametrize("mode", ["sequential", "bin"])
def test_evaluation_is_the_loss_of_each_document_by_itself(
    make_config: Any, stopwatch: StepTimer, mode: str
):
    """The bigram model's loss doesn't depend on rows: a plain sum over texts is the reference."""
    data = {"packing_mode": mode, "packing_buffer_docs": 8, "max_eval_samples": 7}
    config = make_config(data=data, train={"eval_every": 1})
    setup = build_components(config, None)
    params = setup.program.init().params
    evaluate = Evaluate(
        setup.data.evaluation,
        compile_loss(setup),
        stopwatch,
        guard=lambda work: work(),
        should_stop=lambda: False,
    )
    found = evaluate.evaluate(params)
    head, embed = np.asarray(params.lm_head.weight), np.asarray(params.embed.weight)
    nats, targets, size = 0.0, 0, 0
    documents = setup.data.evaluation._load()
    setup.data.close()
    assert len(documents) == 7
    for document in documents:
        ids = document.tokens
        logits = embed[ids[:-1]].astype(np.float64) @ head.T
        logits -= logits.max(-1, keepdims=True)
        logprobs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        nats -= logprobs[np.arange(len(ids) - 1), ids[1:]].sum()
        targets += len(ids) - 1
        size += document.bytes - 1  # a byte a token; the first one isn't scored, EOS has none
    assert found["eval_targets"] == targets
    assert found["eval_loss"] == pytest.approx(nats / targets, rel=1e-5)
    assert found["eval_perplexity"] == pytest.approx(math.exp(nats / targets), rel=1e-4)
    assert found["eval_bits_per_byte"] == pytest.approx(nats / math.log(2) / size, rel=1e-5)


def test_work_that_is_not_training_waits_for_the_device(stopwatch: StepTimer):
    """Whatever was dispatched before is training time, not the pause's."""
    slow = jax.jit(lambda x: jax.lax.fori_loop(0, 300, lambda i, y: y @ x / 30.0, x))
    x = jnp.ones((300, 300))
    slow(x).block_until_ready()
    stopwatch.lap()
    with stopwatch.waiting():
        pass
    start = time.perf_counter()
    state = TrainState((), (), slow(x)[0, 0], jnp.asarray(0), jnp.zeros(2))
    held = StepInfo(state, moment(1).metrics, Progress(1), moment(1).stats)
    inside: list[float] = []
    note = lambda moment: inside.append(time.perf_counter() - start)  # noqa: E731
    save = SaveCheckpoint(note, stopwatch, check=lambda: None)
    save(held)
    assert stopwatch.lap().seconds >= 0.9 * inside[0] - 0.01
