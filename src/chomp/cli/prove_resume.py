"""`chomp prove-resume`."""

import shlex
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


@click.command("prove-resume")
@click.argument("config_path", metavar="CONFIG", type=click.Path(path_type=Path))
@config_options
@click.option("--steps", default=40, show_default=True, type=click.IntRange(8), help="Of each run.")
@click.option(
    "--kills", default=10, show_default=True, type=click.IntRange(1), help="To be survived, in all."
)
@click.option("--seed", default=0, show_default=True, help="Of the moments; to repeat a failure.")
@click.option("--small", is_flag=True, help="Shrink the model: all else stays as it is.")
@click.option(
    "--work-dir",
    type=FolderPath(),
    help="Keep the runs here. [default: a temporary folder, kept only if the proof fails]",
)
def prove_resume(
    config_path: Path,
    overrides: Sequence[str],
    steps: int,
    kills: int,
    seed: int,
    small: bool,
    work_dir: Path | None,
) -> None:
    """Prove that runs of CONFIG come back exactly from kills at any moment.

    Trains with the data, tokenizer, model and optimizer of CONFIG: once straight, then killed
    (SIGKILL) and resumed again and again, and compares every batch, loss, gradient norm,
    evaluation and sample, and the final state bit for bit. Each kind of moment comes in turn: in a
    step, while a checkpoint is written, in an evaluation, in a sample, across an epoch's end, again
    before the next checkpoint, while it starts again, right after a resume.

    Exit code 0 only if every kill came in its moment and all is equal.

    \b
    chomp prove-resume configs/quickstart.yaml
    chomp prove-resume configs/megalodon-100m.yaml --small --kills 30
    """
    start_environment()
    from chomp.proof.prove_resume import Settings, prove
    from chomp.system.plugins import plugin_options

    config = read_config(config_path, overrides)
    settings = Settings(steps, kills, seed, small, work_dir)
    again = ["chomp", "prove-resume", str(config_path)]
    again += [word for override in overrides for word in ("-o", override)]
    again += plugin_options()
    again += ["--steps", str(steps), "--kills", str(kills), "--seed", str(seed)]
    click.echo(f"proof       {shlex.join(again + ['--small'] * small)}")
    stop_runs_on_signals()
    sys.exit(0 if prove(config, settings, PrintConsole()).proved else 1)
