"""What the host does while the device computes: nothing that waits for it, between rows."""

import dataclasses
import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chomp.config.parallel import ParallelConfig
from chomp.distributed import MeshSharding, make_mesh
from chomp.errors import DataError
from chomp.models.dummy import Dummy
from chomp.models.megalodon.model import Megalodon
from chomp.system.signals import Signals
from chomp.trainer.callback import Callback, PendingWork, StepInfo
from chomp.trainer.callbacks.runner import CallbackRunner
from chomp.trainer.components import Components, build_components, put_checked
from chomp.trainer.control import LocalControl
from chomp.trainer.loop import TrainLoop
from chomp.trainer.program import compile_step
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

LOG_EVERY = 5
STEPS = 15


@pytest.fixture
def setup(make_config: Callable[..., Any]) -> Iterator[Components]:
    setup = build_components(make_config("megalodon", train={"eval_every": 5}), None)
    yield setup
    setup.data.close()


def one_device(rows: int) -> MeshSharding:
    return MeshSharding(make_mesh(ParallelConfig(), rows, jax.devices()[:1]), Dummy(8, 8))


class Endless:
    """The same batch again and again, as the pipeline gives it: on the device."""

    def __init__(self):
        ids = np.zeros((1, 1, 4), np.int32)
        self._drawn = LoadedBatch(
            put_checked(Batch(ids, ids, ids, ids == 0), vocab=1, sharding=one_device(1)),
            BatchStats((SourceCount(2),), 4, 1, 0, 0, 0, (0,), 0),
        )

    def wait(self, seconds: float) -> bool:
        return True

    def __next__(self) -> LoadedBatch:
        return self._drawn


class NoLog:
    """No rows: each would wait for its step."""

    def after_step(self, info: StepInfo) -> None:
        pass


def test_steps_are_dispatched_ahead():
    @jax.jit
    def slow(state: TrainState, batch: Batch) -> tuple[TrainState, StepMetrics]:
        value = jax.lax.fori_loop(0, 20, lambda _, x: jnp.sin(x @ x), state.params)
        state = dataclasses.replace(state, params=value, step=state.step + 1)
        return state, StepMetrics(value[0, 0], value[0, 0], state.step, state.rejected)

    class Look(Callback):
        def __call__(self, info: StepInfo) -> None:
            computing.append(not info.metrics.loss.is_ready())

    computing: list[bool] = []
    zero, signals = jnp.zeros((), jnp.int32), Signals()
    control, timer = LocalControl(Endless(), StopAndSaveRequests(signals)), StepTimer()
    callbacks = CallbackRunner([Look()], NoLog(), [], steps=9, pending=PendingWork())
    state = TrainState(jnp.ones((512, 512)), (), zero, zero, jnp.zeros(2))
    TrainLoop(slow, control, callbacks, timer, steps=9).run(state, Progress())
    # Not all: this thread may have been kept waiting for a core.
    assert sum(computing) >= 5


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The steps at which the training thread brought a value to the host."""
    from jax._src.array import ArrayImpl

    found: list[int] = []
    value, thread = ArrayImpl._value, threading.get_ident()

    now = 0

    def read(array: Any) -> Any:
        if threading.get_ident() == thread:
            found.append(now)
        return value.fget(array)

    class Guarded(CallbackRunner):
        def after_step(self, info: StepInfo) -> None:
            nonlocal now
            now = info.progress.step
            with jax.transfer_guard("disallow" if now % LOG_EVERY else "allow"):
                super().after_step(info)

    class Watched(TrainLoop):
        def run(self, state: TrainState, progress: Progress) -> Any:
            monkeypatch.setattr(ArrayImpl, "_value", property(read))
            try:
                with jax.transfer_guard("disallow"):
                    return super().run(state, progress)
            finally:
                monkeypatch.setattr(ArrayImpl, "_value", value)

    monkeypatch.setattr("chomp.trainer.callbacks.build.CallbackRunner", Guarded)
    monkeypatch.setattr("chomp.trainer.trainer.TrainLoop", Watched)
    return found


def test_a_run_moves_no_value_between_rows(chomp, config_file, tmp_path, reads):
    config = config_file(
        train={"steps": STEPS, "log_every": LOG_EVERY}, checkpoint={"save_every": LOG_EVERY}
    )
    done = chomp("train", config, "--run-dir", tmp_path / "run")
    assert done.code == 0, done.err
    assert set(reads) == {5, 10, 15}


def test_the_step_takes_the_place_of_its_state_and_calls_nobody(setup: Components):
    compiled = compile_step(setup.program, setup.config.train)
    state, drawn = setup.program.init(), next(setup.data.train)
    assert isinstance(drawn.batch.input_ids, jax.Array)
    after, _ = compiled.step(state, drawn.batch)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(after))
    # Runtime checks (`eqx.error_if`) would be calls of the host.
    program = compiled.step.program.as_text()
    assert "fusion" in program
    assert "callback" not in program


def test_evaluation_is_compiled_once(setup: Components, monkeypatch: pytest.MonkeyPatch):
    traced = []
    summed = Megalodon.loss
    monkeypatch.setattr(Megalodon, "loss", lambda *args: traced.append(1) or summed(*args))
    params = setup.program.init().params
    batches = list(setup.data.evaluation.sources[""].batches())
    assert len(batches) > 1
    for batch in [*batches, *batches]:
        setup.program.summed_loss(params, batch)
    assert len(traced) == 1


@pytest.mark.parametrize("token", [-1, 256])
def test_a_token_outside_the_vocabulary_is_refused(token: int):
    ids = np.zeros((1, 2, 3), np.int32)
    ids[0, 1, 2] = token
    with pytest.raises(DataError, match=f"token {token}, .* from 0 to 255"):
        put_checked(Batch(ids, ids, ids, ids == 0), vocab=256, sharding=one_device(2))


def test_the_collector_leaves_alone_what_the_start_has_made(
    chomp, config_file, tmp_path, monkeypatch
):
    states, lap = [], StepTimer.lap

    def noted(stopwatch: StepTimer) -> Any:
        # One of the objects of the start; `gc` doesn't list what it leaves alone.
        listed = any(one is stopwatch for one in gc.get_objects())
        states.append((gc.isenabled(), listed))
        return lap(stopwatch)

    monkeypatch.setattr(StepTimer, "lap", noted)
    config = config_file(train={"steps": 3}, optim={"warmup_steps": 2})
    assert chomp("train", config, "--run-dir", tmp_path / "run").code == 0
    # One before the first step, then one for each row.
    assert states == [(False, True), (False, True), (True, False), (True, False)]
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0
