"""Rows to Weights & Biases."""

import os
import re
import sys
from pathlib import Path
from types import ModuleType

from chomp.config import WandbConfig
from chomp.errors import ConfigError
from chomp.system.atomic_file import replace_text
from chomp.tracking.registered import TrackedRun
from chomp.tracking.tracker import NullTracker, Row

ID_FILE, ORIGINAL = "wandb_id", "config_original.yaml"
"""Files in the run folder."""
INSTALL = "run pip install 'chomp[wandb]'"
START_SECONDS = 30.0
"""Longest that the service may take to answer at the start; W&B's own limit is three times that."""


def require_wandb(key: str | None = None) -> ModuleType:
    """Return the package.

    Args:
        key: the list that names it; None: `logging.wandb.enabled` asks for it.

    Raises:
        ConfigError: it is missing.
    """
    try:
        import wandb
    except ImportError as error:
        raise _not_installed(key) from error
    if wandb.__file__ is None:  # a folder of this name, for example that of W&B's own files
        del sys.modules["wandb"]
        raise _not_installed(key)
    return wandb


def _kept_id(path: Path) -> str | None:
    """Return the id that a run folder keeps; None without one.

    Raises:
        ConfigError: what is there can't be one.
    """
    try:
        text = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError):
        text = ""
    if not text.isprintable() or not text or set(text) & set(":;,#?/'"):
        raise ConfigError(
            [
                f"{path}: holds no id of a W&B run; delete it to go on with a new one there, or "
                "set logging.wandb.enabled: false"
            ]
        )
    return text


def _not_installed(key: str | None) -> ConfigError:
    if key:
        return ConfigError([f"{key}: wandb needs the package wandb: {INSTALL}"])
    return ConfigError(
        [
            "logging.wandb.enabled: the package wandb is not installed; "
            f"{INSTALL}, or set it to false"
        ]
    )


class WandbTracker(NullTracker):
    """A run at Weights & Biases; its own files go to `./wandb`, or to `WANDB_DIR`.

    What the section leaves open W&B takes from its own variables (`WANDB_MODE`, `WANDB_PROJECT`,
    ...).
    """

    def __init__(self, config: WandbConfig, project: str, run: TrackedRun):
        """Start the run, or go on with it: its id is in the run folder.

        W&B takes no second row of a step. Where other values come in the place of what was sent, a
        new run begins there with the rows that hold.

        Args:
            config: the `logging.wandb` section.
            project: used where the section names none.
            run: chomp's; its folder's name is used where neither the section nor `WANDB_NAME`
                names one.

        Raises:
            ConfigError: the package is missing, or the service refuses (no login, no network).
        """
        wandb = require_wandb()
        id_file = run.folder / ID_FILE
        kept = _kept_id(id_file)
        run_id = None if run.outdated else kept
        again = bool(kept) and run_id is None
        self._failed = False
        try:
            self._run = wandb.init(
                project=config.project or os.environ.get("WANDB_PROJECT") or project,
                entity=config.entity,
                name=config.run_name or os.environ.get("WANDB_NAME") or run.folder.name,
                mode=config.mode,
                tags=list(config.tags) or None,
                config=run.config,
                notes=f"Goes on from the run {kept} after step {run.step}." if again else None,
                id=run_id,
                resume="allow" if run_id else None,
                settings=wandb.Settings(console="off", silent=True, init_timeout=START_SECONDS),
            )
        except (wandb.Error, ValueError) as error:  # the latter for a variable that makes no sense
            reason = " ".join(str(error).split())  # it may come in several lines
            raise ConfigError(
                [
                    f"logging.wandb: {reason} (or set logging.wandb.mode: offline, "
                    "and send the run later with wandb sync)"
                ]
            ) from error
        replace_text(id_file, self._run.id + "\n")
        name = re.sub(r"[^A-Za-z0-9_.-]", "_", f"config-{self._run.id}")  # an id may be freer
        artifact = wandb.Artifact(name[:128], type="config")
        artifact.add_file(str(run.folder / ORIGINAL), name=ORIGINAL)
        self._run.log_artifact(artifact)
        if run_id is None:
            for row in run.rows():
                self.log(row)

    def log(self, row: Row) -> None:
        """Log the row at its step; that of an error makes the run a failed one."""
        self._run.log(row, step=row["step"])
        if "error" in row:
            self._failed = True
            self._run.summary["error"] = f"{row['error']}: {row['reason']}"

    def close(self) -> None:
        """Finish the run."""
        self._run.finish(exit_code=int(self._failed))
