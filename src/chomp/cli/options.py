"""What several commands have in common."""

from collections.abc import Callable
from typing import Any

import click

OVERRIDE_HELP = "Set a value of the configuration, as YAML; may be given several times."


def override_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `-o KEY=VALUE` to a command."""
    return click.option(
        "-o", "--override", "overrides", multiple=True, metavar="KEY=VALUE", help=OVERRIDE_HELP
    )(command)


def start_environment() -> None:
    """Set what must stand before JAX is imported."""
    from chomp.runtime import prepare_environment

    for warning in prepare_environment():
        click.echo(f"warning: {warning}", err=True)
