import io
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import jax.numpy as jnp
import pytest

from chomp.checkpoint.checkpointer import Checkpointer
from chomp.config import Config
from chomp.coordinator import Coordinator
from chomp.run.monitor import RunMonitor
from chomp.run.run_folder import RunFolder
from chomp.system.console import Console
from chomp.system.signals import Signals
from chomp.tracking import PlainConsole
from chomp.trainer.callback import StepInfo
from chomp.trainer.components import Components, build_components
from chomp.trainer.context import RunContext
from chomp.types import BatchStats, Progress, SourceCount, StepMetrics, TrainState


class Run:
    """A run of the bigram model with real parts, in a folder of its own."""

    def __init__(self, config: Config, folder: Path, resources: ExitStack):
        self.signals = resources.enter_context(Signals())
        self.shown = io.StringIO()
        self.folder = RunFolder(folder)
        folder.mkdir(exist_ok=True)
        self.monitor = resources.enter_context(
            RunMonitor(
                record=self.folder.record,
                heartbeat=self.folder.heartbeat,
                log_file=None,
                watchdog_seconds=0,
                started=0.0,
                console=Console(),
            )
        )
        self.monitor.begin(versions={}, config={}, compare=lambda old, new: [])
        self.components: Components = build_components(config, None)
        resources.callback(self.components.data.close)
        self.checkpointer = Checkpointer(folder / "checkpoints")
        resources.callback(self.checkpointer.close)
        self.context = RunContext(
            self.folder,
            Coordinator(),
            self.signals,
            PlainConsole(config.train.steps, self.shown),
            self.monitor,
            self.checkpointer,
            0.0,
        )

    def rows(self) -> list[dict]:
        """The rows of metrics."""
        lines = self.folder.inside("metrics.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]


@pytest.fixture
def make_run(make_config: Callable[..., Config], tmp_path: Path) -> Iterator[Callable[..., Run]]:
    with ExitStack() as resources:
        yield lambda **sections: Run(make_config(**sections), tmp_path / "run", resources)


@pytest.fixture
def step_info() -> Callable[..., StepInfo]:
    """Make what callbacks see of a step with three targets in six tokens."""

    def make(step: int, tokens_seen: int = 0, rejected: int = 0, tokens: int = 6) -> StepInfo:
        value = jnp.asarray(2.0)
        metrics = StepMetrics(value, value, jnp.asarray(3), jnp.asarray(rejected))
        state = TrainState((), (), jnp.asarray(step), jnp.asarray(rejected), jnp.zeros(2))
        stats = BatchStats((SourceCount(3),), tokens, 1, 0, 0, 0, (), 0xAB)
        return StepInfo(state, metrics, Progress(step, step, tokens_seen), stats)

    return make
