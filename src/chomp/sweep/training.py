"""Runs of a sweep in this process: checked, and trained with programs that they share."""

import signal
import time
from pathlib import Path
from typing import Any

from chomp.config import Config, config_from_mapping
from chomp.errors import ChompError, ConfigError, DivergedError
from chomp.run.run_folder import RunFolder
from chomp.system.compile_watch import CompileWatch
from chomp.system.garbage_collection import deferred_collection
from chomp.trainer import launch
from chomp.trainer.callback import Callback, StepInfo
from chomp.trainer.components import open_tokenizer
from chomp.trainer.refusal import check_installed, other_problems
from chomp.trainer.request import Request
from chomp.trainer.shared_programs import SharedPrograms

STEP = "train_step"
"""Name of the step's function, by which JAX tells of its compilation."""


class StopAfter(Callback):
    """Asks for a stop after a step, as a signal does: the run is saved, and can be gone on with.

    Args:
        step: the step; a run that begins behind it stops after its first one.
    """

    def __init__(self, step: int):
        super().__init__()
        self._step = step

    def is_due(self, step: int) -> bool:
        """Whether it is that step, or a later one."""
        return step >= self._step

    def __call__(self, info: StepInfo) -> None:
        """Ask for it."""
        signal.raise_signal(signal.SIGTERM)


class Training:
    """Does the tasks of a sweep."""

    def __init__(self):
        self._programs, self._watch = SharedPrograms(), CompileWatch()

    def do(self, task: dict[str, Any]) -> dict[str, Any]:
        """Do a task, and return what came of it."""
        if "check" in task:
            return {"problems": [problems_of(values) for values in task["check"]]}
        return self._train(task)

    def _train(self, task: dict[str, Any]) -> dict[str, Any]:
        """Begin a run, or go on with it."""
        folder = RunFolder(Path(task["folder"]))
        stop_after = task["stop_after"]
        request = Request(
            config_from_mapping(task["values"]),
            task["text"],
            folder,
            "latest" if folder.holds_run() else None,
            (),
            time.perf_counter(),
            callbacks=[StopAfter(stop_after)] if stop_after else [],
        )
        self._watch.clear()
        error = None
        code = 0
        try:
            with deferred_collection():
                code = launch.train(request, self._programs)
        except ChompError as raised:
            error = {"diverged": isinstance(raised, DivergedError), "reason": str(raised)}
        return {
            "code": code,
            "error": error,
            "compiled": self._watch.has_compiled(STEP),
            "compile_seconds": self._watch.seconds,
        }


def problems_of(values: dict[str, Any]) -> list[str]:
    """Return what would keep a run from starting, a line each; nothing is compiled."""
    config = config_from_mapping(values)
    try:
        check_installed(config)
        open_tokenizer(config, None)
    except ChompError as error:
        found = error.problems if isinstance(error, ConfigError) else [str(error)]
    else:
        found = []
    return list(dict.fromkeys([*found, *_other_problems(config)]))


def _other_problems(config: Config) -> list[str]:
    return other_problems(config, alone=True)
