"""`chomp train`."""

import json
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chomp.cli.hints import newest_run
from chomp.cli.options import (
    FolderPath,
    config_options,
    process_options,
    read_config,
    read_config_and_text,
    start_environment,
)
from chomp.errors import ConfigError
from chomp.system.garbage_collection import deferred_collection
from chomp.system.signals import nothing_to_save
from chomp.system.terminal import outlive_readers

if TYPE_CHECKING:
    from chomp.config import Config
    from chomp.run.run_folder import RunFolder

NONE = ("none", "None", "null", "no", "false", "False", "")


@dataclass(frozen=True)
class TrainOptions:
    """The command line of `chomp train`."""

    config_path: Path | None
    overrides: Sequence[str]
    run_dir: Path | None
    resume: str | None
    allow_change: Sequence[str]
    coordinator: str | None
    processes: int | None
    process_id: int | None
    dry_run: bool

    def check(self) -> None:
        """Raise UsageError, or ConfigError, for what doesn't go together."""
        from chomp.checkpoint.compatibility import check_allowed

        resume = self.resume
        if resume is not None and resume != "latest" and not resume.lstrip("-").isdecimal():
            none = resume in NONE
            fix = "leave --resume out for a new run" if none else "write latest, or a step"
            raise click.UsageError(f"--resume {resume!r}: {fix}")
        if resume and self.run_dir is None:
            newest = newest_run()
            hint = f"; the newest one here: --run-dir {newest}" if newest else ""
            raise click.UsageError(
                f"--resume needs --run-dir, the folder of the run to go on with{hint}"
            )
        if resume and self.dry_run:
            raise click.UsageError("--dry-run is of a new run: leave --resume out, and give CONFIG")
        if self.allow_change and not resume:
            raise click.UsageError("--allow-change goes with --resume")
        check_allowed(self.allow_change)


@click.command()
@click.argument("config_path", metavar="[CONFIG]", required=False, type=click.Path(path_type=Path))
@config_options
@click.option("--run-dir", type=FolderPath(), help="Run folder. [default: a new one in runs/]")
@click.option(
    "--init-from",
    metavar="RUN[:STEP]|PATH",
    help="Begin with the weights of another run, or of an exported model.",
)
@click.option("--resume", metavar="latest|STEP", help="Go on with the run in --run-dir.")
@click.option(
    "--allow-change",
    multiple=True,
    metavar="KEY",
    help="Resume although this value of the configuration has changed.",
)
@process_options
@click.option("--dry-run", is_flag=True, help="Compile and take one step; write nothing.")
@deferred_collection()
def train(**options: Any) -> None:
    """Train the model that CONFIG describes, or go on with a run.

    CONFIG may be left out with --resume: the run's own configuration is used then.

    \b
    chomp train configs/quickstart.yaml -o optim.lr=1e-3
    chomp train --run-dir runs/first --resume latest -o train.steps=2000
    chomp train other.yaml --init-from runs/first:500

    A run may have several processes, on one host or on many: start the same command for each of
    them. Under SLURM, Open MPI or an indexed Kubernetes job they find each other; else each is told
    --coordinator, --processes and --process-id, or JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and
    JAX_PROCESS_ID in the environment.
    """
    started = time.perf_counter()
    outlive_readers()
    with nothing_to_save():
        code = _train(_options(**options), started)
    sys.exit(code)


def _options(*, init_from: str | None, overrides: Sequence[str], **options: Any) -> TrainOptions:
    if init_from is not None:
        if options["resume"]:
            raise click.UsageError("--init-from is for a new run: leave it or --resume out")
        overrides = (*overrides, f"train.init_from={json.dumps(init_from)}")
    return TrainOptions(overrides=overrides, **options)


def _train(options: TrainOptions, started: float) -> int:
    options.check()
    config, original, folder = _read_or_refuse(options)
    given = _keys(options.overrides) if _is_a_run_folders(options.config_path) else None
    start_environment()
    from chomp.distributed import find_process
    from chomp.trainer import launch
    from chomp.trainer.request import Request

    process = find_process(options.coordinator, options.processes, options.process_id)
    if options.dry_run:
        launch.dry_run(config, process)
        return 0
    resume, allowed = options.resume, options.allow_change
    request = Request(config, original, folder, resume, allowed, started, process, given=given)
    return launch.train(request)


def _is_a_run_folders(config: Path | None) -> bool:
    """Whether a configuration is that of a run folder, which may be somebody else's."""
    from chomp.run.folder_config import is_of_a_run

    return config is None or is_of_a_run(config)


def _keys(overrides: Sequence[str]) -> list[str]:
    """Return the dotted keys, or sections, that overrides set."""
    return [
        ".".join(part.strip() for part in override.partition("=")[0].split("."))
        for override in overrides
    ]


def _read_or_refuse(options: TrainOptions) -> tuple["Config", str, "RunFolder"]:
    """Read the configuration; one that is wrong is refused with all else that is wrong with it."""
    from chomp.config import InvalidConfigError

    try:
        return _read(options)
    except InvalidConfigError as error:
        if options.resume or error.sections is None:
            raise
        start_environment()
        logging.getLogger().addHandler(logging.NullHandler())  # plugins of JAX complain there
        from chomp.distributed import find_process
        from chomp.trainer.refusal import other_problems

        alone = find_process(options.coordinator, options.processes, options.process_id) is None
        more = other_problems(error.sections, error.invalid, alone=alone)
        raise ConfigError([*error.problems, *more]) from error


def _read(options: TrainOptions) -> tuple["Config", str, "RunFolder"]:
    """Return the configuration, the text that it was read from, and the run's folder."""
    from chomp.run.run_folder import RunFolder, new_run_path

    path, run_dir, overrides = options.config_path, options.run_dir, options.overrides
    if path is None:
        if run_dir is None or not options.resume:
            hint = f", or --resume latest to go on with the run in {run_dir}" if run_dir else ""
            raise click.UsageError(f"give a CONFIG, for example configs/quickstart.yaml{hint}")
        folder = RunFolder(run_dir)
        folder.require_run()
        folder.read_resolved()
        config = read_config(folder.resolved_config, overrides, of_a_run=True)
        return config, folder.read_original(), folder
    config, original = read_config_and_text(path, overrides)
    if given := run_dir or config.logging.run_dir:
        return config, original, RunFolder(Path(given))
    return config, original, RunFolder(new_run_path(name=path.stem), numbered=True)
