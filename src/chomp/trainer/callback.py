"""Callbacks: work that the training loop does after some of its steps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

from chomp.errors import DataError
from chomp.tracking.tracker import Row
from chomp.types import BatchStats, Progress, StepMetrics, TrainState


class StepInfo(NamedTuple):
    """A finished step, as callbacks see it."""

    state: TrainState
    """After the step; donated to the next one, so nothing may keep it."""
    metrics: StepMetrics
    """On the device: reading one waits for the step."""
    progress: Progress
    """The counts after the step."""
    stats: BatchStats
    """What its batch held."""


class Callback:
    """Work after some of the steps: subclass it, and give it to the `Trainer`.

    The values that a call returns are written to the step's row of metrics. A call may raise
    `Interrupted` where a stop was requested before its work was done, and `DataError` where it
    lacks a document: the run then ends with a checkpoint, and a resume makes the call again.
    """

    name: ClassVar[str] = ""
    """By which a checkpoint remembers a call that a resume has to make; by default the class's."""
    at_end: ClassVar[bool] = False
    """Whether it is called after the last step as well, whatever its number."""
    at_stop: ClassVar[bool] = False
    """Whether it is called when the run stops before its last step, or a call was interrupted."""

    def __init__(self, every: int = 1):
        """Be called after each step that `every` divides; 0: after none."""
        self.every = every

    def __init_subclass__(cls) -> None:
        cls.name = cls.__dict__.get("name") or cls.__name__

    def is_due(self, step: int) -> bool:
        """Whether the work follows this step."""
        return self.every > 0 and step % self.every == 0

    def __call__(self, info: StepInfo) -> Row | None:
        """Do the work; return values for the step's row of metrics."""
        raise NotImplementedError

    def close(self) -> None:
        """Release what the callback holds, when training ends for whatever reason."""


class LogWindow(NamedTuple):
    """The steps since the newest row of metrics."""

    steps: int = 0
    tokens: int = 0
    """Their tokens that are not padding."""
    targets: Mapping[str, int] = {}
    """Their targets from each of `data.sources`, by its name."""

    def after(self, stats: BatchStats, sources: Sequence[str]) -> "LogWindow":
        """Return the window with one more step, whose batch is drawn from these sources."""
        targets = dict.fromkeys(sources, 0) | dict(self.targets)
        for name, drawn in zip(sources, stats.by_source, strict=False):
            targets[name] += drawn.targets
        return LogWindow(self.steps + 1, self.tokens + stats.tokens, targets)


@dataclass
class PendingWork:
    """What is still to be done for the newest step: checkpoints keep it, and a resume does it.

    Attributes:
        row: values that no row of metrics has yet.
        callbacks: names of those that a stop or a failure has kept from their work.
        window: steps that no row of metrics tells of.
        failure: why a callback couldn't have the documents that it needs: ends the run, saved.
    """

    row: Row = field(default_factory=dict)
    callbacks: list[str] = field(default_factory=list)
    window: LogWindow = field(default_factory=LogWindow)
    failure: DataError | None = None
