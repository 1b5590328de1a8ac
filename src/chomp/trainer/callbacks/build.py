"""The periodic work of a run, in its order."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

from chomp.data import read_retries
from chomp.generation import SampleMaker, Sampling
from chomp.models.megalodon.flops import model_flops_per_token, product_dtype
from chomp.system.device_flops import QUICK_SIZE, matmul_rate, peak_flops
from chomp.system.garbage_collection import settle
from chomp.system.jax_runtime import memory_readings
from chomp.tracking import MultiTracker
from chomp.trainer import (
    Callback,
    DeviceCheck,
    Evaluate,
    GenerateSample,
    LogMetrics,
    LogWindow,
    LossMonitor,
    MfuMeter,
    Profile,
    RecordBatch,
    SaveCheckpoint,
    StepInfo,
    StepTimer,
    idle,
)
from chomp.trainer.components import Components
from chomp.trainer.control import RunControl
from chomp.trainer.programs import CompiledStep, compile_loss
from chomp.types import BatchStats, Progress


class FreezeGarbage:
    """Tidies up behind the start, once the first step has nothing to wait for any more."""

    def __init__(self, stopwatch: StepTimer):
        self._steps, self._stopwatch = 0, stopwatch

    def __call__(self, moment: StepInfo) -> None:
        """Count the step; after the second one, collect garbage for the last time at length.

        That may take a second, which is none of a step's time.
        """
        self._steps += 1
        if self._steps == 2:
            with idle(self._stopwatch, moment.state, "training"):
                settle()


@dataclass(frozen=True)
class CallbackBuilder:
    """Makes the periodic work of a run: logging, evaluation, samples, saves.

    Attributes:
        setup: the parts of the run.
        tracker: takes rows and samples.
        stopwatch: measures the steps.
        steering: what is asked for from outside.
        watch: of the loss.
        progress: counts at the start.
        window: the steps before the start that no row tells of.
    """

    setup: Components
    tracker: MultiTracker
    stopwatch: StepTimer
    steering: RunControl
    watch: LossMonitor
    progress: Progress
    window: LogWindow

    def actions(
        self,
        compiled: CompiledStep,
        *,
        save: Callable[[StepInfo], None] | None,
        profile: Profile | None,
        record: Callable[[int, int, BatchStats], None] | None,
    ) -> list[Callback]:
        """Return the work in its order: a row comes after what adds to it.

        Args:
            compiled: the training step, whose compile time the first row tells.
            save: writes a checkpoint; None: there are none.
            profile: records a trace; None: nothing does.
            record: keeps step, batch number and what the batch drew; None: nothing does.
        """
        config, steering = self.setup.config, self.steering
        train, debug = config.train, config.debug
        actions = [Callback("settle", FreezeGarbage(self.stopwatch), 1)]
        if record:
            every = config.logging.ledger_every
            actions.append(Callback("record", RecordBatch(record), every, at_end=True))
        if debug.nan_check:
            actions.append(Callback("watch", self.watch.collect, 1))
        if train.eval_every:
            evaluate = Evaluate(
                self.setup.data.evaluation,
                compile_loss(self.setup),
                self.stopwatch,
                guard=steering.guard,
                should_stop=steering.should_stop_here,
            )
            actions.append(Callback("evaluate", evaluate, train.eval_every, at_end=True))
        actions.append(Callback("log", self._log(compiled), 1, at_end=True, reports=True))
        if train.generate_every and config.model.backend == "megalodon":
            # What the leader does alone of it has a guard of its own.
            sample = GenerateSample(
                self._make_sample(), self._report_sample, self.stopwatch, guard=lambda make: make()
            )
            actions.append(Callback("sample", sample, train.generate_every, at_end=True))
        if save:
            actions.append(self._save(save))
        actions.append(Callback("device check", DeviceCheck(), debug.check_device_every))
        if profile:
            actions.append(Callback("profile", profile, 1))
        return actions

    def _save(self, save: Callable[[StepInfo], None]) -> Callback:
        steering = self.steering

        def save_and_restart(moment: StepInfo) -> None:
            save(moment)
            steering.saved()

        saving = SaveCheckpoint(save_and_restart, self.stopwatch, check=self.watch.check)
        every = self.setup.config.checkpoint.save_every
        return Callback("save", saving, every, at_end=True, at_stop=True, asked=steering.save_asked)

    def _log(self, compiled: CompiledStep) -> LogMetrics:
        config = self.setup.config
        train = config.train
        return LogMetrics(
            self.tracker,
            self.stopwatch,
            every=train.log_every,
            steps=train.steps,
            progress=self.progress,
            window=self.window,
            rates=self.setup.learner.schedules,
            constants={"packing_mode": config.data.packing_mode},
            first_row={"first_step_compile_time_s": compiled.seconds},
            row_tokens=train.grad_accum * train.batch_size * train.seq_len,
            memory=memory_readings,
            utilization=self._utilization(),
            read_retries=read_retries,
            check=self.watch.check,
        )

    def _utilization(self) -> MfuMeter:
        config = self.setup.config
        train, tflops = config.train, config.logging.peak_tflops
        tokens = train.grad_accum * train.batch_size * train.seq_len
        peak = peak_flops(jax.devices()[0].device_kind) if tflops is None else tflops * 1e12
        mesh = self.setup.learner.placement.mesh
        # Devices of a CPU are threads on the same cores.
        sharing = jax.process_count() if jax.default_backend() == "cpu" else mesh.size
        return MfuMeter(
            tokens * model_flops_per_token(config.model) // sharing,
            peak,
            functools.partial(matmul_rate, product_dtype(config.model), QUICK_SIZE),
        )

    def _make_sample(self) -> Callable[[Any, int], dict[str, Any]]:
        config, tokenizer = self.setup.config, self.setup.tokenizer
        train, placement = config.train, self.setup.learner.placement
        make = SampleMaker(
            next_document=self.setup.data.samples.next_document,
            tokenizer=tokenizer,
            prompt_limit=train.generate_input_len or train.seq_len // 2,
            sampling=Sampling(
                max_tokens=train.generate_max_tokens or config.model.chunk_size + 16,
                temperature=train.generate_temperature,
                top_k=train.generate_top_k,
                top_p=train.generate_top_p,
                eos_id=tokenizer.eos_id,
            ),
            seed=train.seed,
        )

        def make_sample(params: Any, step: int) -> dict[str, Any]:
            whole = placement.whole_here(params)
            return self.steering.by_leader("sample", lambda: make(whole, step))

        return make_sample

    def _report_sample(self, record: dict[str, Any]) -> None:
        self.tracker.sample(record)
        self.setup.data.samples.commit()
