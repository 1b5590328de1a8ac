"""`chomp trace`."""

import shutil
from pathlib import Path

import click

from chomp.cli.options import plugin_option


@click.command()
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option("--step", default="latest", metavar="latest|STEP", help="Step to look at.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@plugin_option
def trace(run_dir: Path, step: str, as_json: bool) -> None:
    """Name the documents that a step of a run was trained on, with their first words.

    \b
    chomp trace runs/first --step 500
    chomp trace runs/first --step 500 --json | jq '.documents[].source'
    """
    if step != "latest" and not step.isdecimal():
        raise click.BadParameter(f"must be latest or a step (got {step})", param_hint="--step")
    from chomp.commands.trace import trace as find
    from chomp.commands.trace import trace_lines

    found = find(run_dir, None if step == "latest" else int(step))
    if as_json:
        click.echo(found.as_json())
        return
    for line in trace_lines(found, shutil.get_terminal_size().columns):
        click.echo(line)
