"""`chomp lm-eval`."""

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


@click.command("lm-eval")
@click.argument("run", type=RunAndStep(), metavar="RUN[:STEP]")
@click.argument("tasks", nargs=-1, required=True, metavar="TASK...")
@click.option(
    "--tasks-dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Folder of more tasks, YAML files; Python code that they name is run.",
)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Examples of a task at most.")
@click.option(
    "--num-fewshot",
    type=click.IntRange(0),
    metavar="N",
    help="Examples before each question. [default: the task's]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@ema_option
@trust_option
@plugin_option
def lm_eval(run: tuple[Path, str], tasks: Sequence[str], as_json: bool, **options: Any) -> None:
    """Run tasks of the Language Model Evaluation Harness on the model of a run.

    Needs the extra `lm-eval`.

    \b
    chomp lm-eval runs/first arc_easy lambada_openai --limit 100
    chomp lm-eval runs/first:500 my_task --tasks-dir tasks --json
    """
    from chomp.run.run_folder import RunFolder

    RunFolder(run[0]).require_run()
    start_environment()
    from chomp.commands.lm_eval_tasks import LmEvalRequest, run_tasks

    found = run_tasks(LmEvalRequest(*run, tasks, **options), PrintConsole(stderr=True))
    if as_json:
        click.echo(json.dumps(found.as_values()))
        return
    for line in found.lines():
        click.echo(line)
