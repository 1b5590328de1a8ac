"""Samples of generated text during training."""

from chomp.generation import SampleMaker, Sampling
from chomp.run.heartbeat import Phase
from chomp.tracking import Tracker
from chomp.trainer.callback import Callback, StepInfo
from chomp.trainer.components import Components
from chomp.trainer.control import RunControl
from chomp.trainer.step_timer import StepTimer


def sample_maker(components: Components) -> SampleMaker:
    """Return what makes the samples that the `train` section asks for."""
    config, tokenizer = components.config, components.tokenizer
    train = config.train
    return SampleMaker(
        documents=components.data.samples,
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


class GenerateSample(Callback):
    """Continues a part of the next document of the sample stream.

    Args:
        components: of the run.
        tracker: takes the sample.
        control: interrupts the work when a stop is requested.
        timer: takes the time out of the steps'.
        every: steps between samples.
    """

    name = "sample"
    at_end = True

    def __init__(
        self,
        components: Components,
        tracker: Tracker,
        control: RunControl,
        timer: StepTimer,
        every: int,
    ):
        super().__init__(every)
        self._make, self._documents = sample_maker(components), components.data.samples
        self._sharding = components.program.sharding
        self._tracker, self._control, self._timer = tracker, control, timer

    def __call__(self, info: StepInfo) -> None:
        """Generate with the parameters of this step, and report what came out.

        Raises:
            Interrupted: a stop was requested; nothing was reported.
        """
        with self._timer.paused_after(info.state, Phase.SAMPLING):
            params = self._sharding.whole_here(info.state.params)
            step = info.progress.step
            record = self._control.on_leader("sample", self._make, params, step)
            self._tracker.sample(record)
            self._documents.commit()
