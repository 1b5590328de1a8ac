"""`chomp compare`."""

import json
from pathlib import Path

import click

from chomp.cli.options import RunAndStep, plugin_option, start_environment, trust_option
from chomp.system.console import PrintConsole


@click.command()
@click.argument("first", type=RunAndStep(), metavar="A[:STEP]")
@click.argument("second", type=RunAndStep(), metavar="B[:STEP]")
@click.option(
    "--evaluate",
    is_flag=True,
    help="Score the evaluation documents with both models, and test whether these differ.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@trust_option
@plugin_option
def compare(
    first: tuple[Path, str],
    second: tuple[Path, str],
    evaluate: bool,
    as_json: bool,
    trust_remote_code: bool,
) -> None:
    """Compare two runs: configuration, losses at equal tokens, and whether it may be chance.

    A step is that of the checkpoints to evaluate, by default the newest ones.

    \b
    chomp compare runs/first runs/second
    chomp compare runs/first:500 runs/second:500 --evaluate
    chomp compare runs/first runs/second --json | jq .losses
    """
    from chomp.report.compare import compare as compare_runs
    from chomp.report.compare_lines import compare_lines
    from chomp.run.run_folder import RunFolder

    scores = []
    for path, _ in (first, second):
        RunFolder(path).require_run()
    if evaluate:
        start_environment()
        from chomp.report.scores import document_scores

        console = PrintConsole(stderr=True)
        scores = [
            document_scores(path, step, trust_remote_code, console)
            for path, step in (first, second)
        ]
    found = compare_runs([first[0], second[0]], scores)
    if as_json:
        click.echo(json.dumps(found.as_values()))
        return
    for line in compare_lines(found):
        click.echo(line)
