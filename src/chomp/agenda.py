"""The periodic work of a run, in its order."""

from collections.abc import Callable
from dataclasses import dataclass

from chomp.data import read_retries
from chomp.generation import SampleMaker, Sampling
from chomp.parts import Compiled, Setup, compile_loss
from chomp.runtime import memory_readings
from chomp.tracking import Tracker
from chomp.training import Action, DeviceCheck, Evaluate, Log, Profile, Sample, Save, Stopwatch
from chomp.types import Progress, TrainState


@dataclass(frozen=True)
class Agenda:
    """What is done between steps, and when.

    Attributes:
        setup: the parts of the run.
        tracker: takes rows and samples.
        stopwatch: measures the steps.
        progress: counts at the start.
    """

    setup: Setup
    tracker: Tracker
    stopwatch: Stopwatch
    progress: Progress

    def actions(
        self,
        compiled: Compiled,
        *,
        save: Callable[[TrainState, Progress], None] | None,
        profile: Profile | None,
    ) -> list[Action]:
        """Return the work in its order: a row comes after what adds to it.

        Args:
            compiled: the training step, whose compile time the first row tells.
            save: writes a checkpoint; None: there are none.
            profile: records a trace; None: nothing does.
        """
        config = self.setup.config
        train, debug = config.train, config.debug
        actions = []
        if train.eval_every:
            loss_step = compile_loss(self.setup)
            evaluate = Evaluate(self.setup.data.evaluation, loss_step, self.stopwatch)
            actions.append(Action("evaluate", evaluate, train.eval_every, at_end=True))
        actions.append(Action("log", self._log(compiled), 1, at_end=True, reports=True))
        if train.generate_every and config.model.backend == "megalodon":
            sample = Sample(self._sample_maker(), self.stopwatch)
            actions.append(Action("sample", sample, train.generate_every, at_end=True))
        if save:
            saving = Save(save, self.stopwatch, nan_check=debug.nan_check)
            every = config.checkpoint.save_every
            actions.append(Action("save", saving, every, at_end=True, at_stop=True))
        actions.append(Action("device check", DeviceCheck(), debug.check_device_every))
        if profile:
            actions.append(Action("profile", profile, 1))
        return actions

    def _log(self, compiled: Compiled) -> Log:
        config = self.setup.config
        train = config.train
        return Log(
            self.tracker,
            self.stopwatch,
            every=train.log_every,
            steps=train.steps,
            progress=self.progress,
            rates=self.setup.learner.schedules,
            constants={"packing_mode": config.data.packing_mode},
            first_row={"first_step_compile_time_s": compiled.seconds},
            row_tokens=train.grad_accum * train.batch_size * train.seq_len,
            memory=memory_readings,
            read_retries=read_retries,
            nan_check=config.debug.nan_check,
        )

    def _sample_maker(self) -> SampleMaker:
        config, tokenizer = self.setup.config, self.setup.tokenizer
        train = config.train
        return SampleMaker(
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
            report=self.tracker.sample,
        )
