"""`chomp prove-scale`."""

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from chomp.cli.options import (
    FolderPath,
    config_options,
    read_config,
    start_environment,
    stop_runs_on_signals,
)
from chomp.system.console import PrintConsole


@click.command("prove-scale")
@click.argument("config_path", metavar="CONFIG", type=click.Path(path_type=Path))
@config_options
@click.option("--steps", default=20, show_default=True, type=click.IntRange(6), help="Of each run.")
@click.option("--small", is_flag=True, help="Shrink the model: all else stays as it is.")
@click.option(
    "--tolerance",
    default=1e-4,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="Largest relative difference of losses and parameters.",
)
@click.option(
    "--work-dir",
    type=FolderPath(),
    help="Keep the runs here. [default: a temporary folder, kept only if the proof fails]",
)
def prove_scale(
    config_path: Path,
    overrides: Sequence[str],
    steps: int,
    small: bool,
    tolerance: float,
    work_dir: Path | None,
) -> None:
    """Prove that CONFIG is the same run on one device and on many.

    Trains in float32 on one device, on several meshes of virtual CPU devices, and with 2 and 4
    processes; then once more with a change of devices and processes at each resume. Compares the
    batches, which must be equal, and losses and final parameters, which differ by rounding only:
    sums over devices are made in another order.

    Exit code 0 only if all agree.

    \b
    chomp prove-scale configs/quickstart.yaml -o train.batch_size=8 --small
    """
    start_environment()
    from chomp.proof import prove_scale as proof

    config = read_config(config_path, overrides)
    stop_runs_on_signals()
    settings = proof.ScaleSettings(steps, small, tolerance, work_dir)
    sys.exit(0 if proof.prove_scale(config, settings, PrintConsole()) else 1)
