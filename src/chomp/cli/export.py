"""`chomp export`."""

from pathlib import Path
from typing import Any

import click

from chomp.cli.options import (
    FolderPath,
    RunAndStep,
    ema_option,
    plugin_option,
    start_environment,
    trust_option,
)
from chomp.system.console import PrintConsole


@click.command()
@click.argument("run", type=RunAndStep(), metavar="RUN[:STEP]")
@click.argument("out", type=FolderPath())
@click.option(
    "--format",
    "format_",
    default="hf",
    show_default=True,
    type=click.Choice(("hf", "jax", "upstream")),
    help="For transformers, for megalodon-jax, or for the released PyTorch code.",
)
@click.option(
    "--dtype",
    default="float32",
    show_default=True,
    type=click.Choice(("float32", "bfloat16")),
    help="Number format of matrices; norms and averages stay in float32.",
)
@click.option(
    "--license",
    "license_id",
    metavar="ID",
    help="License of the model for its card, as the Hub names it: apache-2.0, cc-by-4.0, other.",
)
@click.option(
    "--push",
    "repository",
    metavar="USER/NAME",
    help="Upload the folder to the Hugging Face Hub as well; a new repository is private.",
)
@ema_option
@trust_option
@plugin_option
def export(run: tuple[Path, str], out: Path, format_: str, **options: Any) -> None:
    """Write the model of a run to the new folder OUT, for other programs.

    With the extra `export` installed, PyTorch computes what was written, and it is compared with
    the original.

    \b
    chomp export runs/first models/first
    chomp export runs/first:500 models/first --dtype bfloat16 --license mit --push me/first
    """
    from chomp.run.run_folder import RunFolder

    RunFolder(run[0]).require_run()
    start_environment()
    from chomp.export.export import ExportRequest, export_run

    request = ExportRequest(*run, out, format_, **options)
    for line in export_run(request, PrintConsole(stderr=True)):
        click.echo(line)
