"""`chomp doctor`."""

import json
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from chomp.cli.options import config_options, read_config, start_environment

if TYPE_CHECKING:
    from chomp.commands.check import Check


@click.command()
@click.argument("config_path", metavar="[CONFIG]", required=False, type=click.Path(path_type=Path))
@config_options
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def doctor(config_path: Path | None, overrides: Sequence[str], as_json: bool) -> None:
    """Say whether this machine and installation are fit to train; with CONFIG try that too.

    Each line is ok, a warning or a problem with its fix; the exit code is 1 if there is a problem.
    With CONFIG the tokenizer is loaded, the first batch read, and a step compiled and taken;
    nothing is written but compiled programs.

    \b
    chomp doctor
    chomp doctor configs/quickstart.yaml
    """
    start_environment()
    logging.getLogger().addHandler(logging.NullHandler())  # the findings say what matters
    from chomp.commands.check import check_lines, has_problem

    checks = []
    for check in _checks(config_path, overrides):
        checks.append(check)
        if not as_json:
            for line in check_lines([check]):
                click.echo(line)
    if as_json:
        click.echo(json.dumps([check._asdict() for check in checks], indent=2))
    sys.exit(int(has_problem(checks)))


def _checks(path: Path | None, overrides: Sequence[str]) -> "Iterator[Check]":
    """Return the findings, each when it is known."""
    from chomp.commands.check import problem
    from chomp.commands.config_checks import config_checks
    from chomp.commands.machine_checks import machine_checks
    from chomp.config import InvalidConfigError
    from chomp.data import missing_inputs
    from chomp.errors import ConfigError

    try:
        config = read_config(path, overrides) if path else None
    except ConfigError as error:
        lines, sections = error.problems, None
        if isinstance(error, InvalidConfigError) and (sections := error.sections):
            lines = [*lines, *missing_inputs(sections.data, error.invalid)]
        yield from machine_checks(sections)
        yield from (problem("config", line) for line in lines)
        return
    yield from machine_checks(config)
    if config is not None:
        yield from config_checks(config)
