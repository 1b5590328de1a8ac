"""`chomp sweep`."""

import json
import re
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chomp.cli.options import FolderPath, config_options, rich_console
from chomp.system.console import Console, PrintConsole
from chomp.system.terminal import one_line, outlive_readers, program_name

if TYPE_CHECKING:
    from chomp.sweep.arms import Axis
    from chomp.sweep.display import Display
    from chomp.sweep.plan import Wanted
    from chomp.sweep.record import SweepRecord


@click.command()
@click.argument("config_path", metavar="CONFIG", type=click.Path(path_type=Path))
@click.argument("values", metavar="[KEY=VALUE,...]...", nargs=-1)
@config_options
@click.option("--zip", "zipped", is_flag=True, help="Combine first values with first ones, ...")
@click.option(
    "--random", metavar="N", type=click.IntRange(1), help="So many of the combinations, by chance."
)
@click.option(
    "--seeds",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="Train each arm so often, with other initial weights and another order of documents.",
)
@click.option(
    "--budget",
    metavar="600s|2e6tokens",
    help="Choose train.steps so that each run takes so long, start included, or so many tokens.",
)
@click.option(
    "--halving", is_flag=True, help="End the worse half of the arms after a quarter, then a half."
)
@click.option("--jobs", default=1, show_default=True, type=click.IntRange(1), help="Runs at once.")
@click.option("--baseline", metavar="ARM", help="Compare with this one. [default: the first arm]")
@click.option("--json", "as_json", is_flag=True, help="Print the results as one JSON object.")
@click.option(
    "--dir", "folder", type=FolderPath(), help="Of the sweep. [default: runs/sweep-CONFIG-KEYS]"
)
def sweep(**options: Any) -> None:
    """Train CONFIG with each combination of some values, and compare what they reach.

    KEY=VALUE is for all runs, KEY=VALUE,VALUE makes an arm of each value. Values are YAML; commas
    inside of brackets don't divide. An arm's name is its values: optim.lr=3e-3. The arm `default`
    is CONFIG as it is.

    All runs are checked before the first begins, and those that differ only in rates and seeds
    share one compiled program. The same command again goes on where it was; more values or seeds
    extend the sweep. Exit code 0 only if all runs are finished.

    \b
    chomp sweep configs/quickstart.yaml optim.lr=3e-3,6e-3,1.2e-2 --seeds 5
    chomp sweep configs/quickstart.yaml optim.name=adamw,muon --budget 180s --baseline default
    chomp sweep configs/quickstart.yaml 'optim={name: muon, lr: 3e-3},{lr: 6e-3}' train.steps=300
    """
    if not options["as_json"]:
        outlive_readers()
    sys.exit(_sweep(**options))


def _sweep(*, as_json: bool, jobs: int, folder: Path | None, **options: Any) -> int:
    from chomp.sweep.plan import read_plan
    from chomp.sweep.results import as_values
    from chomp.sweep.run import open_record, run_sweep
    from chomp.sweep.summary import columns, go_on, notes, rows

    wanted = _wanted(**options)
    plan = read_plan(wanted)
    folder = folder or Path("runs") / default_name(wanted.config, wanted.axes)
    console = PrintConsole(stderr=as_json)
    with ExitStack() as resources:
        record = open_record(plan, folder, console, resources)
        display = _display(record, jobs, console)
        found, code = run_sweep(plan, record, folder, jobs, display)
    if as_json:
        click.echo(json.dumps(as_values(found, record, folder)))
    elif any(arm.finished for arm in found.arms) or code == 1:
        _print_table(columns(found), rows(found))
        for line in notes(found, folder):
            click.echo(one_line(line))
    if code > 1:
        console.message(go_on([program_name(), *sys.argv[1:]], found))
    return code


def _display(record: "SweepRecord", jobs: int, console: Console) -> "Display":
    from chomp.sweep.display import Display, LiveDisplay

    if sys.stdout.isatty():
        return LiveDisplay(record, jobs, console, rich_console())
    return Display(record, jobs, console)


def _print_table(columns: list[str], rows: list[list[str]]) -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE)
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    rich_console().print(table)


def _wanted(
    *, config_path: Path, values: Sequence[str], budget: str | None, **options: Any
) -> "Wanted":
    from chomp.sweep.arms import Choice, read_axes
    from chomp.sweep.budget import read_budget
    from chomp.sweep.plan import Wanted

    choice = Choice(options["zipped"], options["random"])
    if choice.zipped and choice.random:
        raise click.UsageError("--zip and --random don't go together")
    return Wanted(
        config_path,
        read_axes(values),
        options["overrides"],
        choice,
        options["baseline"],
        options["seeds"],
        read_budget(budget) if budget else None,
        options["halving"],
    )


def default_name(config: Path, axes: "Sequence[Axis]") -> str:
    """Return the name of a sweep's folder: that of its configuration, and the keys."""
    keys = [axis.key.rpartition(".")[2] for axis in axes if len(axis.values) > 1]
    return re.sub(r"[^\w.-]+", "-", "-".join(["sweep", config.stem, *keys]))[:100]
