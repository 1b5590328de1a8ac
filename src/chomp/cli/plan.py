"""`chomp plan`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chomp.cli.options import config_options, read_config, rich_console, start_environment
from chomp.system.console import PrintConsole

if TYPE_CHECKING:
    from chomp.plan.plan import Plan


@click.command()
@click.argument("config_path", metavar="CONFIG", type=click.Path(path_type=Path))
@config_options
@click.option(
    "--for",
    "name",
    default="h100",
    show_default=True,
    metavar="NAME",
    help="The accelerator: h100, h200, a100, b200, rtx4090, rtx5090, ... or v5e.",
)
@click.option(
    "--devices",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="How many there would be.",
)
@click.option(
    "--hosts",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="How many hosts they would be on; fast links end at a host.",
)
@click.option(
    "--memory-gb",
    type=click.FloatRange(0, min_open=True),
    help="What a step may use on each device, in 10^9 bytes.  [default: 90% of the accelerator's]",
)
@click.option("--accelerator", "earlier", multiple=True, hidden=True)
@click.option(
    "--mfu",
    type=click.FloatRange(0, 1, min_open=True),
    help="Share of the peak rate, as in a run's metrics, to take the speed from.  "
    "[default: the speed is estimated from the compiled program]",
)
@click.option(
    "--network-gbps",
    type=click.FloatRange(0, min_open=True),
    help="Speed between hosts for each device, in 10^9 bits a second.",
)
@click.option("--quick", is_flag=True, help="Don't look for the largest microbatch that fits.")
@click.option(
    "--propose",
    is_flag=True,
    help="Find the fastest split of a step's rows into microbatches that fits.",
)
@click.option("--json", "to_json", is_flag=True, help="Print one JSON object.")
def plan(
    config_path: Path,
    overrides: Sequence[str],
    earlier: Sequence[str],
    quick: bool,
    to_json: bool,
    **options: Any,
) -> None:
    """Find out what CONFIG would need on devices that are not there.

    Compiles the training step for so many of them without allocating anything, and says what
    memory each needs, what it launches, what they send each other, how long a step may take and
    what bounds it, and the largest microbatch that fits. Needs the extra `plan`; without it, it is
    this machine's processor that the step is compiled for.

    \b
    chomp plan configs/megalodon-100m.yaml --for rtx4090 --propose
    chomp plan configs/megalodon-7b.yaml --for h100 --devices 64 --hosts 8 --quick
    """
    config = read_config(config_path, overrides)
    start_environment()
    from chomp.plan.request import Asked, make_request, refuse_earlier_option

    refuse_earlier_option(earlier)
    request = make_request(Asked(search=not quick, **options))
    from chomp.plan.plan import make_plan
    from chomp.trainer.accelerator_program import use_virtual_devices

    use_virtual_devices(request.devices if request.on_processor else 1)
    made = make_plan(config, request, PrintConsole(stderr=True))
    if to_json:
        click.echo(json.dumps(made.to_json(), indent=2))
        return
    _print(made)


def _print(made: "Plan") -> None:
    from chomp.hlo.tables import CAUTION, parts_table, totals_table
    from chomp.plan import tables

    console = rich_console()
    console.print(tables.headline(made))
    console.print(tables.memory_table(made))
    if made.sizes.collectives:
        console.print(tables.collectives_table(made))
    if made.figures is not None:
        console.print(totals_table({"": made.figures}))
        console.print(parts_table(made.figures))
    for line in tables.closing_lines(made):
        console.print(line)
    if made.proposal is not None:
        console.print(tables.proposal_table(made.proposal.tried, made.request.limit))
    for line in tables.proposal_lines(made):
        console.print(line)
    if made.figures is not None:
        console.print(CAUTION)
