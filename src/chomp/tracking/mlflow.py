"""Rows and samples to MLflow."""

import json
import logging
import os
import time
from typing import TYPE_CHECKING, Any

from chomp.config import MlflowConfig
from chomp.errors import ConfigError
from chomp.system.atomic_file import replace_text
from chomp.tracking.registered import TrackedRun
from chomp.tracking.tracker import NullTracker, Row, numbers

if TYPE_CHECKING:
    from mlflow import MlflowClient  # pyright: ignore[reportMissingImports]

ID_FILE = "mlflow_id"
"""Keeps the id of the MLflow run that a resume goes on with, in the run folder."""
MOST_METRICS, MOST_PARAMS, LONGEST = 1000, 100, 6000
"""Of one message to the service; and characters of a parameter's value."""
NOTE = "mlflow.note.content"
"""The tag that is shown as a run's description."""


class MlflowTracker(NullTracker):
    """An MLflow run.

    A resume goes on with it. Rows that are made again with the same values are there twice then.
    Where other values come in the place of what was sent, a new MLflow run begins with the rows
    that hold.
    """

    def __init__(self, config: MlflowConfig, project: str, run: TrackedRun):
        """Start the run, or go on with it.

        Args:
            config: the `logging.mlflow` section.
            project: the experiment, where neither the section nor `MLFLOW_EXPERIMENT_NAME` has one.
            run: chomp's.

        Raises:
            ConfigError: the run that the run folder names isn't there.
        """
        self._client, self._failed = _connect(config), False
        id_file = run.folder / ID_FILE
        kept = id_file.read_text("utf-8").strip() if id_file.is_file() else None
        if kept is not None and not run.outdated:
            self._go_on(kept, str(id_file))
            return
        name = config.experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or project
        found = self._client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self._client.create_experiment(name)
        note = {NOTE: f"Goes on from the run {kept} after step {run.step}."} if kept else {}
        made = self._client.create_run(
            experiment, run_name=config.run_name or run.folder.name, tags=note
        )
        self._id: str = made.info.run_id
        if kept is not None:
            what = f"The run {self._id} has other values after step {run.step}."
            self._client.set_tag(kept, NOTE, what)
        replace_text(id_file, self._id + "\n")
        self._log_config(run)
        for row in run.rows():
            self.log(row)

    def log(self, row: Row) -> None:
        """Log the row's numbers at its step; that of an error makes the run a failed one."""
        from mlflow.entities import Metric  # pyright: ignore[reportMissingImports]

        now = int(time.time() * 1000)
        metrics = [Metric(key, value, now, row["step"]) for key, value in numbers(row).items()]
        for start in range(0, len(metrics), MOST_METRICS):
            self._client.log_batch(self._id, metrics=metrics[start : start + MOST_METRICS])
        if "error" in row:
            self._failed = True
            self._client.set_tag(self._id, "error", f"{row['error']}: {row['reason']}")

    def sample(self, record: Row) -> None:
        """Log a sample as an artifact, a file of its own."""
        text = f"prompt\n------\n{record['prompt']}\n\ncontinuation\n------------\n"
        self._client.log_text(
            self._id, text + record["continuation"], f"samples/step-{record['step']:07d}.txt"
        )

    def close(self) -> None:
        """End the run."""
        self._client.set_terminated(self._id, "FAILED" if self._failed else "FINISHED")

    def _go_on(self, kept: str, place: str) -> None:
        from mlflow.exceptions import MlflowException  # pyright: ignore[reportMissingImports]

        try:
            tags = self._client.get_run(kept).data.tags
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise ConfigError(
                [f"{place}: MLflow has no run {kept!r}; delete the file to begin a new one there"]
            ) from error
        self._id = kept
        self._client.update_run(kept, status="RUNNING")
        if "error" in tags:
            self._client.delete_tag(kept, "error")

    def _log_config(self, run: TrackedRun) -> None:
        from mlflow.entities import Param  # pyright: ignore[reportMissingImports]

        params = [Param(key, text[:LONGEST]) for key, text in _texts(run.config).items()]
        for start in range(0, len(params), MOST_PARAMS):
            self._client.log_batch(self._id, params=params[start : start + MOST_PARAMS])
        self._client.log_dict(self._id, run.config, "config.json")


def _connect(config: MlflowConfig) -> "MlflowClient":
    from mlflow import MlflowClient  # pyright: ignore[reportMissingImports]

    for name in ("mlflow", "alembic"):  # what they say belongs to the log, not to the console
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    return MlflowClient(tracking_uri=config.tracking_uri)


def _texts(values: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested values by their dotted keys, as texts."""
    found: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= _texts(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value if isinstance(value, str) else json.dumps(value)
    return found
