"""`chomp status`."""

from pathlib import Path

import click


@click.command()
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def status(run_dir: Path, as_json: bool) -> None:
    """Say what a run is doing, how far it is, and what happened to it.

    \b
    chomp status runs/first
    chomp status runs/first --json | jq .goodput
    """
    import json

    from chomp.commands.status import read_status
    from chomp.commands.status_lines import status_lines

    found = read_status(run_dir)
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=2))
        return
    for line in status_lines(found):
        click.echo(line)
