"""`chomp eval`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from chomp.cli.options import (
    RunAndStep,
    ema_option,
    plugin_option,
    start_environment,
    trust_option,
)
from chomp.system.console import PrintConsole


@click.command("eval")
@click.argument("run", type=RunAndStep(), metavar="RUN[:STEP]")
@click.option(
    "--files",
    multiple=True,
    metavar="PATH",
    help="Score these instead: a file, a folder or a glob in quotes; may be given several times.",
)
@click.option("--dataset", metavar="NAME", help="Score a Hugging Face dataset, or a folder of one.")
@click.option("--split", default="test", show_default=True, help="Split of --dataset.")
@click.option("--text-key", metavar="KEY", help="Field of the text. [default: the run's]")
@click.option("--per-document", is_flag=True, help="Score each document as well.")
@click.option(
    "--context",
    type=click.IntRange(2),
    metavar="N",
    help="Read each document as a stream of up to N tokens, and score by position.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@ema_option
@trust_option
@plugin_option
def evaluate(
    run: tuple[Path, str], files: Sequence[str], dataset: str | None, as_json: bool, **options: Any
) -> None:
    """Score texts with the model of a run: loss, perplexity, bits per byte.

    Without --files and --dataset these are the run's own evaluation documents, and the figures
    those of its row of metrics at that step.

    \b
    chomp eval runs/first
    chomp eval runs/first:500 --files 'books/*.txt' --per-document
    chomp eval runs/first --files book.txt --context 16384 --json
    """
    from chomp.run.run_folder import RunFolder

    split, text_key = options.pop("split"), options.pop("text_key")
    if files and dataset:
        raise click.UsageError("give --files or --dataset, not both")
    RunFolder(run[0]).require_run()
    start_environment()
    from chomp.commands.evaluate import EvaluateRequest
    from chomp.commands.evaluate import evaluate as evaluate_run
    from chomp.evaluation.texts import OtherTexts

    texts = OtherTexts(files, dataset, split, text_key) if files or dataset else None
    found = evaluate_run(EvaluateRequest(*run, texts, **options), PrintConsole(stderr=True))
    if as_json:
        click.echo(json.dumps(found.as_values()))
        return
    for line in found.lines():
        click.echo(line)
