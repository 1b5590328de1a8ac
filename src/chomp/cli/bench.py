"""`chomp bench`."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from chomp.cli.options import override_option, start_environment

Values = dict[str, object]


@click.group()
def bench() -> None:
    """Measure the parts of a configuration: step, data, checkpoints, start.

    Writes no run folder. Other load on the machine makes the figures worthless.

    \b
    chomp bench step configs/quickstart.yaml --against library
    """


def _measurement(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what all measurements take."""
    command = click.option("--json", "to_json", is_flag=True, help="Print one JSON object.")(
        command
    )
    command = override_option(command)
    path = click.Path(path_type=Path)
    return click.argument("config_path", metavar="CONFIG", type=path)(command)


def _rounds(default: int) -> Callable[..., Any]:
    return click.option(
        "--rounds",
        default=default,
        show_default=True,
        type=click.IntRange(1),
        help="How often each is measured, in turn.",
    )


def _tell(text: str) -> None:
    click.echo(text, err=True)


@bench.command("step")
@_measurement
@click.option(
    "--against",
    type=click.Choice(["library", "stream"]),
    help="Compare with model.fast_ops: false, or with data.isolate_documents: false.",
)
@_rounds(5)
@click.option(
    "--steps",
    default=3,
    show_default=True,
    type=click.IntRange(1),
    help="Steps in a row in each round.",
)
def step(
    config_path: Path,
    overrides: Sequence[str],
    to_json: bool,
    against: Any,
    rounds: int,
    steps: int,
) -> None:
    """Measure the compiled training step of CONFIG on its own batches.

    Compiles without the compile cache. The rate of one large matrix product, measured in turn,
    gives the least time that the step's matrix products could take.

    \b
    chomp bench step configs/quickstart.yaml --against library --rounds 7
    chomp bench step configs/megalodon-100m.yaml --json | jq .step_seconds
    """
    from chomp.config import load_config

    config = load_config(config_path, overrides)
    start_environment()
    from chomp.bench.step import bench_step

    found = bench_step(config, against=against, rounds=rounds, steps=steps, tell=_tell)
    _print(found, to_json, [against] if against else [])


def _print(values: Values, to_json: bool, others: Sequence[str] = ()) -> None:
    """Print values as one JSON object, or as a table with a column for each program."""
    from chomp.bench.spread import as_json
    from chomp.bench.table import table

    if to_json:
        click.echo(json.dumps(as_json(values), indent=2))
        return
    from rich.console import Console

    # A pipe is no reason to cut a table short.
    width = None if sys.stdout.isatty() else 120
    Console(highlight=False, width=width).print(table(values, others))
