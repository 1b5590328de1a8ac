"""`chomp plan`."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from chomp.cli.options import override_option, start_environment


@click.command()
@click.argument("config_path", metavar="CONFIG", type=click.Path(path_type=Path))
@override_option
@click.option("--devices", required=True, type=click.IntRange(1), help="How many there would be.")
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
    help="What a step may use on each device, in 10^9 bytes.  "
    "[default: 90% of the smallest accelerator's]",
)
@click.option(
    "--accelerator",
    "accelerators",
    multiple=True,
    metavar="NAME",
    help="Estimate the speed on these; may be given several times.  "
    "[default: a100-80gb, h100-sxm, b200]",
)
@click.option(
    "--mfu",
    type=click.FloatRange(0, 1, min_open=True),
    help="Share of the peak rate on one device, as in a run's metrics.  "
    "[default: 0.4; 0.3 with model.use_checkpoint]",
)
@click.option(
    "--network-gbps",
    type=click.FloatRange(0, min_open=True),
    help="Speed between hosts for each device, in 10^9 bits a second.",
)
@click.option("--quick", is_flag=True, help="Don't look for the largest microbatch that fits.")
@click.option("--json", "to_json", is_flag=True, help="Print one JSON object.")
def plan(
    config_path: Path,
    overrides: Sequence[str],
    devices: int,
    hosts: int,
    memory_gb: float | None,
    accelerators: Sequence[str],
    mfu: float | None,
    network_gbps: float | None,
    quick: bool,
    to_json: bool,
) -> None:
    """Find out what CONFIG would need on devices that are not there.

    Compiles the training step for so many virtual devices without allocating anything, and says
    what memory each of them needs, what they send each other, how fast a step could be, and the
    largest microbatch that fits.

    \b
    chomp plan configs/megalodon-7b.yaml --devices 64 --hosts 8 --quick
    chomp plan configs/megalodon-100m.yaml --devices 8 --accelerator rtx-4090 --json
    """
    from chomp.config import load_config

    config = load_config(config_path, overrides)
    start_environment()
    from chomp.plan.accelerators import GB, USUAL, accelerator
    from chomp.plan.plan import Request, check_hosts, make_plan, use_virtual_devices

    check_hosts(devices, hosts)
    request = Request(
        devices,
        hosts,
        memory_gb and memory_gb * GB,
        [accelerator(name) for name in accelerators or USUAL],
        mfu,
        network_gbps and network_gbps * GB / 8,
        search=not quick,
    )
    use_virtual_devices(devices)
    made = make_plan(config, request, lambda text: click.echo(text, err=True))
    if to_json:
        click.echo(json.dumps(made.to_json(), indent=2))
        return
    from rich.console import Console

    from chomp.plan import tables

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    console.print(tables.headline(made))
    for table in (tables.memory_table, tables.collectives_table, tables.estimates_table):
        console.print(table(made))
    for line in tables.closing_lines(made):
        console.print(line)
