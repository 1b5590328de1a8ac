"""The checkpoints of a run: listed, verified, compared. Reads only."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from chomp.checkpoint.directory import CheckpointDirectory, Retention
from chomp.checkpoint.disk import megabytes
from chomp.checkpoint.manifest import NAME, check_sizes, read_manifest
from chomp.config import Config, config_from_mapping
from chomp.errors import DamagedError, ResumeError
from chomp.run.run_folder import RunFolder


class Finding(NamedTuple):
    """A checkpoint, and what is wrong with it."""

    step: int
    problem: str | None


def open_run(path: Path) -> tuple[CheckpointDirectory, Config]:
    """Return the checkpoints of a run and its configuration.

    Raises:
        ResumeError: there is no run, or it has no checkpoints.
    """
    folder = RunFolder(path)
    folder.require_run()
    if not folder.resolved_config.exists():
        raise ResumeError(f"{path} has no checkpoints: its run ended while it started")
    config = config_from_mapping(folder.read_resolved())
    directory = CheckpointDirectory(folder.inside(config.checkpoint.root_dir or "checkpoints"))
    if not directory.steps():
        raise ResumeError(f"{path} has no checkpoints in {directory.folder}")
    return directory, config


def table(path: Path) -> list[list[str]]:
    """Return a row for each checkpoint: step, size, age, tokens, how long it stays, completeness.

    Raises:
        ResumeError: there are none.
    """
    directory, config = open_run(path)
    retention = Retention(config.checkpoint.max_to_keep, config.checkpoint.keep_every)
    rows = []
    for step in directory.steps():
        place = directory.path(step)
        stays = "for good" if retention.is_permanent(step) else "while new"
        try:
            manifest = read_manifest(place)
            age = time.time() - (place / NAME).stat().st_mtime
            row = [f"{step:,}", megabytes(manifest.bytes), _age(age), f"{manifest.tokens:,}", stays]
            check_sizes(place, manifest)
            rows.append([*row, "complete"])
        except (DamagedError, FileNotFoundError) as error:
            # Else the run that it belongs to has just deleted it as too old.
            if os.path.lexists(place):
                rows.append([f"{step:,}", "", "", "", stays, str(error)])
    return rows


def findings(path: Path, step: int | None) -> Iterator[Finding]:
    """Read checkpoints whole, one after the other, and yield what is found.

    Args:
        path: the run folder.
        step: the only one to read; None: all.

    Raises:
        ResumeError: there is none.
    """
    directory, _ = open_run(path)
    if step is not None and step not in directory.steps():
        raise ResumeError(
            f"no checkpoint of step {step} in {directory.folder} "
            f"(saved steps: {', '.join(map(str, directory.steps()))})"
        )
    for number in directory.steps() if step is None else [step]:
        problem = directory.problem(number)
        if os.path.lexists(directory.path(number)):
            yield Finding(number, problem)


def _age(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
