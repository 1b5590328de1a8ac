"""`chomp train`."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

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
from chomp.system.garbage_collection import deferred_collection
from chomp.system.signals import nothing_to_save
from chomp.system.terminal import outlive_readers

NONE = ("none", "None", "null", "no", "false", "False", "")


@click.command()
@click.argument("config_path", metavar="[CONFIG]", required=False, type=click.Path(path_type=Path))
@config_options
@click.option("--run-dir", type=FolderPath(), help="Run folder. [default: a new one in runs/]")
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
def train(
    config_path: Path | None,
    overrides: Sequence[str],
    run_dir: Path | None,
    resume: str | None,
    allow_change: Sequence[str],
    coordinator: str | None,
    processes: int | None,
    process_id: int | None,
    dry_run: bool,
) -> None:
    """Train the model that CONFIG describes, or go on with a run.

    CONFIG may be left out with --resume: the run's own configuration is used then.

    \b
    chomp train configs/quickstart.yaml -o optim.lr=1e-3
    chomp train --run-dir runs/first --resume latest -o train.steps=2000

    A run may have several processes, on one host or on many: start the same command for each of
    them. Under SLURM, Open MPI or an indexed Kubernetes job they find each other; else each is told
    --coordinator, --processes and --process-id, or JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and
    JAX_PROCESS_ID in the environment.
    """
    started = time.perf_counter()
    outlive_readers()
    with nothing_to_save():
        code = _train(
            config_path,
            overrides,
            run_dir,
            resume,
            allow_change,
            (coordinator, processes, process_id),
            dry_run,
            started=started,
        )
    sys.exit(code)


def _train(
    config_path: Path | None,
    overrides: Sequence[str],
    run_dir: Path | None,
    resume: str | None,
    allow_change: Sequence[str],
    process: tuple[str | None, int | None, int | None],
    dry_run: bool,
    *,
    started: float,
) -> int:
    from chomp.checkpoint.compatibility import check_allowed
    from chomp.run.run_folder import RunFolder, new_run_path

    if resume is not None and resume != "latest" and not resume.lstrip("-").isdecimal():
        fix = "leave --resume out for a new run" if resume in NONE else "write latest, or a step"
        raise click.UsageError(f"--resume {resume!r}: {fix}")
    if resume and run_dir is None:
        newest = newest_run()
        hint = f"; the newest one here: --run-dir {newest}" if newest else ""
        raise click.UsageError(
            f"--resume needs --run-dir, the folder of the run to go on with{hint}"
        )
    if resume and dry_run:
        raise click.UsageError("--dry-run is of a new run: leave --resume out, and give CONFIG")
    if allow_change and not resume:
        raise click.UsageError("--allow-change goes with --resume")
    check_allowed(allow_change)
    if config_path is None:
        if not (resume and run_dir):
            hint = f", or --resume latest to go on with the run in {run_dir}" if run_dir else ""
            raise click.UsageError(f"give a CONFIG, for example configs/quickstart.yaml{hint}")
        folder = RunFolder(run_dir)
        folder.require_run()
        folder.read_resolved()
        config = read_config(folder.resolved_config, overrides, of_a_run=True)
        original = folder.read_original()
    else:
        config, original = read_config_and_text(config_path, overrides)
        given = run_dir or config.logging.run_dir
        if given:
            folder = RunFolder(Path(given))
        else:
            folder = RunFolder(new_run_path(name=config_path.stem), numbered=True)
    start_environment()
    from chomp.distributed import find_process
    from chomp.trainer import launch
    from chomp.trainer.request import Request

    process_info = find_process(*process)
    if dry_run:
        launch.dry_run(config, process_info)
        return 0
    request = Request(config, original, folder, resume, allow_change, started, process_info)
    return launch.train(request)
