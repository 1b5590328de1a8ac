"""Rows to Weights & Biases."""

from pathlib import Path
from types import ModuleType
from typing import Any

from chomp.config import WandbConfig
from chomp.errors import ConfigError
from chomp.tracking.tracker import Row, Silent
from chomp.whole_file import replace_text

START_SECONDS = 30.0
"""Longest that the service may take to answer at the start; W&B's own limit is three times that."""


def require_wandb() -> ModuleType:
    """Return the package.

    Raises:
        ConfigError: it is missing.
    """
    try:
        import wandb
    except ImportError as error:
        raise ConfigError(
            [
                "logging.wandb.enabled: the package wandb is not installed; "
                "run pip install 'chomp[wandb]', or set it to false"
            ]
        ) from error
    return wandb


class WandbSink(Silent):
    """A run at Weights & Biases; its own files go to `./wandb`, or to `WANDB_DIR`."""

    def __init__(
        self,
        config: WandbConfig,
        *,
        project: str,
        name: str,
        id_file: Path,
        resolved: dict[str, Any],
        original: Path,
    ):
        """Start the run, or go on with it.

        Args:
            config: the `logging.wandb` section.
            project: used where the section names none.
            name: of the run folder; used where the section names none.
            id_file: keeps the run's id, so that a resume goes on with the same run.
            resolved: the configuration to show.
            original: the user's file, uploaded as an artifact.

        Raises:
            ConfigError: the package is missing, or the service refuses (no login, no network).
        """
        wandb = require_wandb()
        run_id = id_file.read_text().strip() if id_file.exists() else None
        try:
            self._run = wandb.init(
                project=config.project or project,
                entity=config.entity,
                name=config.run_name or name,
                mode=config.mode,
                tags=list(config.tags),
                config=resolved,
                id=run_id,
                resume="allow" if run_id else None,
                settings=wandb.Settings(console="off", silent=True, init_timeout=START_SECONDS),
            )
        except wandb.Error as error:
            reason = " ".join(str(error).split())  # it may come in several lines
            raise ConfigError(
                [
                    f"logging.wandb: {reason} (or set logging.wandb.mode: offline, "
                    "and send the run later with wandb sync)"
                ]
            ) from error
        replace_text(id_file, self._run.id + "\n")
        artifact = wandb.Artifact(f"config-{self._run.id}", type="config")
        artifact.add_file(str(original), name="config_original.yaml")
        self._run.log_artifact(artifact)

    def log(self, row: Row) -> None:
        """Log the row at its step."""
        self._run.log(row, step=row["step"])

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()
