"""A training run started from Python rather than by a command."""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from chomp.config import Config, config_from_mapping, config_text, load_config
from chomp.errors import ResumeError
from chomp.run.run_folder import RunFolder, new_run_path
from chomp.trainer import launch
from chomp.trainer.callback import Callback
from chomp.trainer.request import Request

Source = str | os.PathLike[str] | Mapping[str, Any] | Config


def train(
    config: Source,
    *,
    run_dir: str | os.PathLike[str] | None,
    callbacks: Sequence[Callback],
    resume: str | int | None,
    allow_change: Sequence[str],
) -> int:
    """Train as `chomp.train` says."""
    started = time.perf_counter()
    loaded, text = _read(config)
    if resume is not None and run_dir is None:
        raise ResumeError("resume: needs run_dir, the folder of the run to go on with")
    given = run_dir or loaded.logging.run_dir
    if given:
        folder = RunFolder(Path(given))
    else:
        name = Path(config).stem if isinstance(config, str | os.PathLike) else "run"
        folder = RunFolder(new_run_path(name=name), numbered=True)
    asked = None if resume is None else str(resume)
    return launch.train(
        Request(loaded, text, folder, asked, allow_change, started, callbacks=callbacks)
    )


def _read(config: Source) -> tuple[Config, str]:
    """Return a configuration, and its text as the run folder keeps it."""
    if isinstance(config, str | os.PathLike):
        text = config_text(Path(config))
        return load_config(Path(config), text=text), text
    if isinstance(config, Config):
        return config, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    return config_from_mapping(config), yaml.safe_dump(dict(config), sort_keys=False)
