"""`chomp branch`."""

from collections.abc import Sequence
from pathlib import Path

import click

from chomp.cli.options import FolderPath, RunAndStep, config_options
from chomp.system.console import PrintConsole
from chomp.system.terminal import one_line


@click.command()
@click.argument("run", type=RunAndStep(), metavar="RUN[:STEP]")
@click.argument("new", type=FolderPath())
@config_options
def branch(run: tuple[Path, str], new: Path, overrides: Sequence[str]) -> None:
    """Make the new run folder NEW, which goes on from a checkpoint of RUN.

    It has all that the checkpoint has: parameters, optimizer, data position, counts. What -o
    changes is changed from that step on; RUN stays as it is.

    \b
    chomp branch runs/first:8000 runs/cooldown -o train.steps=10000 -o optim.min_lr_ratio=0.1
    chomp train --run-dir runs/cooldown --resume latest
    """
    from chomp.commands.branch import BranchRequest, branch_run

    made = branch_run(BranchRequest(*run, new, overrides), PrintConsole(stderr=True))
    for line in made.lines():
        click.echo(one_line(line))
