"""`chomp bench`."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from chomp.cli.options import config_options, read_config, rich_console, start_environment
from chomp.system.console import PrintConsole

Values = dict[str, object]


@click.group()
def bench() -> None:
    """Measure the parts of a configuration: step, data, checkpoints, start, GPU program.

    Writes no run folder. Other load on the machine makes the figures worthless.

    \b
    chomp bench step configs/quickstart.yaml --against library
    """


def _measurement(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what all measurements take."""
    command = click.option("--json", "to_json", is_flag=True, help="Print one JSON object.")(
        command
    )
    command = config_options(command)
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


def _console() -> PrintConsole:
    return PrintConsole(stderr=True)


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
    config = read_config(config_path, overrides)
    start_environment()
    from chomp.bench.step import bench_step

    found = bench_step(config, against=against, rounds=rounds, steps=steps, console=_console())
    others = {against: f"{against}_"} if against else {}
    _print(found, to_json, {"this config": ""} | others)


@bench.command("data")
@_measurement
@click.option(
    "--against",
    metavar="CONFIG2",
    type=click.Path(path_type=Path),
    help="Compare with the pipeline of another configuration.",
)
@_rounds(5)
@click.option(
    "--seconds", default=4.0, show_default=True, type=click.FloatRange(0.1), help="Of each round."
)
def data(
    config_path: Path,
    overrides: Sequence[str],
    to_json: bool,
    against: Path | None,
    rounds: int,
    seconds: float,
) -> None:
    """Measure the data pipeline of CONFIG, from documents to batches.

    In turn with it, unless the corpus is tokenised already, its tokenizer alone: what it makes of
    the corpus when nothing else is done.

    \b
    chomp bench data configs/quickstart.yaml
    chomp bench data prepared.yaml --against configs/quickstart.yaml
    """
    config = read_config(config_path, overrides)
    other = read_config(against) if against else None
    start_environment()
    from chomp.bench.data import bench_data

    found = bench_data(config, against=other, rounds=rounds, seconds=seconds, console=_console())
    _print(found, to_json, {"this config": ""} | ({str(against): "against_"} if against else {}))


@bench.command("checkpoint")
@_measurement
@_rounds(5)
@click.option(
    "--dir",
    "folder",
    default=".",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="On the disk to measure; all is deleted at the end. [default: the current folder]",
)
def checkpoint(
    config_path: Path, overrides: Sequence[str], to_json: bool, rounds: int, folder: Path
) -> None:
    """Measure saving, verifying and restoring the training state of CONFIG.

    \b
    chomp bench checkpoint configs/quickstart.yaml
    """
    config = read_config(config_path, overrides)
    start_environment()
    from chomp.bench.checkpoint import bench_checkpoint

    found = bench_checkpoint(config, folder=folder, rounds=rounds, console=_console())
    _print(found, to_json, {"measured": ""})


@bench.command("startup")
@_measurement
@_rounds(3)
def startup(config_path: Path, overrides: Sequence[str], to_json: bool, rounds: int) -> None:
    """Measure the time from `chomp train CONFIG` to its first finished step.

    Each round starts twice in fresh processes: cold, with an empty compile cache, and warm. Runs
    and caches are in a temporary folder.

    \b
    chomp bench startup configs/quickstart.yaml
    """
    from chomp.bench.startup import bench_startup

    read_config(config_path, overrides)  # what is wrong with it is better said here
    found = bench_startup(config_path, overrides, rounds=rounds, console=_console())
    _print(found, to_json, {"cold": "cold_", "warm": "warm_"})


@bench.command("program")
@_measurement
@click.option(
    "--for",
    "accelerator_name",
    required=True,
    metavar="NAME",
    help="The GPU: h100, h200, a100, b200, rtx4090, rtx5090, ...",
)
@click.option("--devices", default=1, show_default=True, type=click.IntRange(1), help="How many.")
@click.option(
    "--against",
    type=click.Choice(["library", "stream"]),
    help="Compare with model.fast_ops: false, or with data.isolate_documents: false.",
)
def program(
    config_path: Path,
    overrides: Sequence[str],
    to_json: bool,
    accelerator_name: str,
    devices: int,
    against: Any,
) -> None:
    """Count what CONFIG's training step does on an accelerator that isn't there.

    Compiles it for the accelerator, which takes minutes for a large model, and reads the program:
    what is launched and moved and multiplied, by part and source line, and how long that may take.

    \b
    chomp bench program configs/megalodon-100m.yaml --for h100
    chomp bench program configs/megalodon-100m.yaml --for h100 --against library --json
    """
    config = read_config(config_path, overrides)
    start_environment()
    from chomp.bench.program import bench_program
    from chomp.hlo.accelerators import accelerator
    from chomp.trainer.accelerator_program import use_virtual_devices

    known = accelerator(accelerator_name)
    use_virtual_devices()
    found = bench_program(config, known, devices, against, _console())
    if to_json:
        click.echo(json.dumps(found.to_json(), indent=2))
        return
    from chomp.hlo import tables

    others = {} if found.other is None else {str(against): found.other}
    console = rich_console()
    console.print(f"{found.parameters:,} parameters, {found.tokens:,} tokens a step")
    console.print(tables.totals_table({"this config": found.figures} | others))
    console.print(tables.parts_table(found.figures))
    console.print(tables.lines_table(found.figures))
    console.print(tables.float32_table(found.figures))
    console.print(
        f"{found.tokens / found.figures.seconds:,.0f} tokens/s, model FLOPs utilization "
        f"{found.utilization:.1%}"
    )
    console.print(tables.CAUTION)


def _print(values: Values, to_json: bool, columns: Mapping[str, str]) -> None:
    """Print values as one JSON object, or as a table of these titles and prefixes."""
    from chomp.bench.spread import as_json
    from chomp.bench.table import table

    if to_json:
        click.echo(json.dumps(as_json(values), indent=2))
        return
    rich_console().print(table(values, columns))
