"""`chomp checkpoints`."""

import sys
from pathlib import Path

import click

from chomp.cli.options import plugin_option
from chomp.system.terminal import one_line

RUN = click.Path(path_type=Path)


@click.group()
def checkpoints() -> None:
    """Look at the checkpoints of a run: list, verify, compare.

    Reads only, so the run may be going on meanwhile.

    \b
    chomp checkpoints verify runs/first
    """


@checkpoints.command("list")
@click.argument("run", type=RUN)
@plugin_option
def list_checkpoints(run: Path) -> None:
    """List the checkpoints of RUN.

    `complete` says that all files are there in their sizes; `verify` reads them.

    \b
    chomp checkpoints list runs/first
    """
    from chomp.commands.checkpoints import table

    rows = [["step", "size", "age", "tokens", "stays", "state"], *table(run)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row[:4], widths[:4], strict=True)]
        click.echo(one_line("  ".join([*cells, row[4].ljust(widths[4]), row[5]])))


@checkpoints.command("verify")
@click.argument("run", type=RUN)
@click.option("--step", type=int, help="Verify this checkpoint only.")
@plugin_option
def verify(run: Path, step: int | None) -> None:
    """Read the checkpoints of RUN and compare each file with what was written.

    Exit code 1 if any is damaged.

    \b
    chomp checkpoints verify runs/first --step 500
    """
    from chomp.commands.checkpoints import findings

    damaged = False
    for finding in findings(run, step):
        click.echo(one_line(f"step {finding.step:,}: {finding.problem or 'good'}"))
        damaged |= finding.problem is not None
    sys.exit(int(damaged))


@checkpoints.command("diff")
@click.argument("run", type=RUN)
@click.argument("run2", type=RUN, required=False)
@click.option("--step", type=int, help="Checkpoint of RUN. [default: the newest good one]")
@click.option("--step2", type=int, help="Checkpoint of RUN2. [default: the newest good one]")
@plugin_option
def diff(run: Path, run2: Path | None, step: int | None, step2: int | None) -> None:
    """Compare two checkpoints bit for bit: arrays, counts and data place.

    Without RUN2, two of RUN. Exit code 0 if they are equal, 1 if they differ.

    \b
    chomp checkpoints diff runs/first runs/again
    chomp checkpoints diff runs/first --step 100 --step2 200
    """
    if run2 is None and step == step2:
        raise click.UsageError("give a second run, or two steps with --step and --step2")
    from chomp.cli.options import start_environment

    start_environment()
    from chomp.commands.checkpoint_diff import difference

    differs = False
    for line in difference(run, step, run2 or run, step2):
        click.echo(one_line(line))
        differs = True
    if not differs:
        click.echo("equal, bit for bit")
    sys.exit(int(differs))
