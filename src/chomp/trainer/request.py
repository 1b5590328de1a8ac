"""What the user asked for: a run, or to go on with one."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from chomp.config import Config
from chomp.distributed import ProcessInfo
from chomp.run.run_folder import RunFolder
from chomp.trainer.callback import Callback


@dataclass(frozen=True)
class Request:
    """What the user asked for.

    Attributes:
        config: the validated configuration.
        original: text of the user's file.
        folder: where the run lives.
        resume: `latest`, a step, or None for a new run.
        allow_change: dotted keys that may differ from the saved run.
        started: `time.perf_counter()` when the command began.
        process: this one among several; None: it is alone.
        callbacks: the user's own, besides those that the configuration asks for.
        given: dotted keys that the user gives, where the rest of the configuration is that of the
            run folder, which may be somebody else's; None: all is the user's.
    """

    config: Config
    original: str
    folder: RunFolder
    resume: str | None
    allow_change: Sequence[str]
    started: float
    process: ProcessInfo | None = None
    callbacks: Sequence[Callback] = ()
    given: Collection[str] | None = None
