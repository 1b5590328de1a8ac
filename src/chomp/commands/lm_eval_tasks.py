"""Tasks of lm_eval on a saved run."""

import contextlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chomp.commands.evaluate import scorer_of
from chomp.commands.saved_model import model_of, open_run_config, restore_model
from chomp.errors import ConfigError, DataError, ResumeError
from chomp.run.run_folder import RunFolder
from chomp.system.console import Console
from chomp.system.terminal import one_line, styled
from chomp.trainer.components import batch_spec

RESAMPLES = 1000
"""Samples for the standard error of a metric that has no formula of it."""
PARTS = ("results", "groups", "n-shot", "n-samples", "higher_is_better", "versions")
"""Parts of lm_eval's results that are shown; the rest are samples, configs and the machine."""


@dataclass(frozen=True)
class LmEvalRequest:
    """A request for the results of tasks.

    Attributes:
        run_dir: folder of the run.
        step: `latest` or a saved step.
        tasks: names of tasks or groups, or patterns of them.
        tasks_dir: folder of more tasks.
        limit: examples of each task at most; None: all.
        num_fewshot: examples before each question; None: as the task says.
        trust_remote_code: run the Python code that comes with the run's tokenizer.
        ema: take the average of the parameters instead of the newest ones.
    """

    run_dir: Path
    step: str
    tasks: Sequence[str]
    tasks_dir: Path | None = None
    limit: int | None = None
    num_fewshot: int | None = None
    trust_remote_code: bool = False
    ema: bool = False


@dataclass(frozen=True)
class TaskResults:
    """The results of lm_eval's tasks.

    Attributes:
        run: folder of the run.
        step: of the checkpoint.
        found: lm_eval's results.
        ema: whether the parameters were their average.
    """

    run: Path
    step: int
    found: dict[str, Any]
    ema: bool = False

    def as_values(self) -> dict[str, Any]:
        """Return it as JSON values."""
        parts = {name: self.found[name] for name in PARTS if self.found.get(name)}
        return {"run": str(self.run), "step": self.step, "ema": self.ema, **parts}

    def lines(self) -> list[str]:
        """Return what a person reads of it: lm_eval's tables."""
        from lm_eval.utils import make_table  # pyright: ignore[reportMissingImports]

        averaged = ", averaged parameters" if self.ema else ""
        lines = [f"run {self.run}, step {self.step}{averaged}", "", make_table(self.found)]
        if self.found.get("groups"):
            lines.append(make_table(self.found, "groups"))
        return lines


def run_tasks(request: LmEvalRequest, console: Console) -> TaskResults:
    """Run tasks of lm_eval on the model of a run, on one device.

    Args:
        request: what to run.
        console: shows warnings.

    Raises:
        ConfigError: the extra isn't installed.
        ResumeError: the folder holds no run, no good checkpoint, or a model without a state.
        DataError: there is no such task, or its dataset can't be read.
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise ConfigError(
            ["the package lm_eval is not installed; run pip install 'chomp[lm-eval]'"]
        )
    folder = RunFolder(request.run_dir)
    config = open_run_config(folder, request.trust_remote_code, console)
    if not model_of(config).can_generate:
        raise ResumeError(
            f"{request.run_dir}: the {config.model.backend} model can't answer lm_eval's tasks; "
            "only model.backend megalodon can"
        )
    manager = _find_tasks(request)
    from chomp.evaluation.lm_eval_model import SavedLM  # needs the extra

    saved = restore_model(config, folder, request.step, console, ema=request.ema)
    model = SavedLM(
        saved.params, saved.tokenizer, batch_spec(saved.config), scorer_of(saved), console
    )
    return TaskResults(request.run_dir, saved.step, _evaluate(model, manager, request), saved.ema)


def _find_tasks(request: LmEvalRequest) -> Any:
    """Return what knows the tasks; lm_eval's own, thousands, are read only if they are needed."""
    from lm_eval.tasks import TaskManager  # pyright: ignore[reportMissingImports]

    lacking: Sequence[str] = request.tasks
    for own in (False, True) if request.tasks_dir else (True,):
        manager = TaskManager(include_path=request.tasks_dir, include_defaults=own)
        lacking = [name for name in request.tasks if not manager.match_tasks([name])]
        if not lacking:
            return manager
    where = f" in {request.tasks_dir} nor" if request.tasks_dir else ""
    raise DataError(
        f"{lacking[0]}: no such task{where} in lm_eval; `lm_eval ls tasks` lists its own"
    )


def _evaluate(model: Any, manager: Any, request: LmEvalRequest) -> dict[str, Any]:
    from datasets.exceptions import DatasetsError
    from lm_eval import simple_evaluate  # pyright: ignore[reportMissingImports]

    # It would fork this process, with JAX's threads in it, to resample.
    os.environ["DISABLE_MULTIPROC"] = "1"
    names = manager.match_tasks(list(request.tasks))
    try:
        # Only results are for standard output; progress bars steer the terminal.
        progress = styled(sys.stderr)
        with contextlib.redirect_stdout(progress), contextlib.redirect_stderr(progress):
            return simple_evaluate(
                model,
                tasks=names,
                num_fewshot=request.num_fewshot,
                limit=request.limit,
                bootstrap_iters=RESAMPLES,
                task_manager=manager,
                log_samples=False,
            )
    except (OSError, DatasetsError) as error:
        raise DataError(f"{', '.join(names)}: {one_line(str(error))}") from error
