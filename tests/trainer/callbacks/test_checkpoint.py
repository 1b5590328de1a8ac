from typing import Any

import pytest

from chomp.errors import DivergedError
from chomp.trainer.callback import LogWindow, PendingWork, StepInfo
from chomp.trainer.callbacks.checkpoint import SaveCheckpoint
from chomp.trainer.control import LocalControl
from chomp.trainer.loop_context import LoopContext
from chomp.trainer.loss_monitor import LossMonitor, LossPolicy
from chomp.trainer.output_files import OutputFiles
from chomp.trainer.step_timer import StepTimer
from chomp.trainer.stop_and_save import StopAndSaveRequests
from chomp.types import BatchStats, Progress, StepMetrics


class Saving:
    """A run with what its checkpoints are made of."""

    def __init__(self, run: Any, every: int):
        components, context = run.components, run.context
        logging = components.config.logging
        fingerprint = components.data.fingerprint
        files = OutputFiles(run.folder, logging, fingerprint, context.console, None)
        self.losses = LossMonitor(LossPolicy.of(components.config.train), [3.5], 0, print, run="r")
        self.pending = PendingWork({"loss": 2.0}, ["evaluate"], LogWindow(2, 12))
        control = LocalControl(components.data.train, StopAndSaveRequests(run.signals))
        loop = LoopContext(
            *(control, StepTimer(), context.console, files, self.losses, self.pending, Progress())
        )
        self.callback = SaveCheckpoint(run.checkpointer, components, context, loop, every)
        state = components.program.init()
        metrics = StepMetrics(state.step, state.step, state.step, state.rejected)
        self.info = StepInfo(state, metrics, Progress(4, 5, 90), BatchStats((), *[0] * 5, (), 0))


@pytest.fixture
def saving(make_run: Any) -> Any:
    run = make_run()
    return run, Saving(run, every=3)


def test_a_checkpoint_holds_what_a_resume_needs(saving: Any):
    run, made = saving
    assert made.callback(made.info) is None
    saved = run.checkpointer.restore_run(4)
    assert saved.progress == Progress(4, 5, 90)
    assert saved.meta["unfinished"] == {"actions": ["evaluate"], "row": {"loss": 2.0}}
    assert saved.meta["window"] == [2, 12, {}]
    assert saved.meta["losses"] == [3.5]
    assert saved.meta["config"] == run.components.given.model_dump(mode="json")
    assert saved.meta["identity"]["data"] == {
        "content": run.components.data.fingerprint,
        "tokens": run.components.tokenizer.fingerprint,
    }
    assert set(saved.meta) == {
        *("config", "identity", "versions", "environment", "cpu_threads", "losses"),
        "arithmetic",
        *("rejected_in_a_row", "skipped", "window", "unfinished", "lines"),
    }


def test_a_signal_asks_for_one_besides_its_steps(saving: Any):
    run, made = saving
    assert [step for step in range(1, 8) if made.callback.is_due(step)] == [3, 6]
    run.signals.save_requested = True
    assert made.callback.is_due(4)
    made.callback(made.info)
    assert not made.callback.is_due(4)
    assert run.monitor.recorder.record.starts[-1].events[-1]["kind"] == "save signal"


def test_a_state_is_judged_before_it_is_saved(saving: Any):
    run, made = saving

    def refuse() -> None:
        raise DivergedError("no")

    made.losses.check = refuse
    with pytest.raises(DivergedError):
        made.callback(made.info)
    assert run.checkpointer.steps() == []
