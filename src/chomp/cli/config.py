"""`chomp config`."""

from collections.abc import Sequence
from pathlib import Path

import click

from chomp.cli.options import config_options, read_config


@click.group()
def config() -> None:
    """Look at configurations: resolved values, schema, reference.

    \b
    chomp config show configs/quickstart.yaml -o train.steps=10
    """


@config.command("show")
@click.argument("config_path", metavar="CONFIG", type=click.Path(path_type=Path))
@config_options
def config_show(config_path: Path, overrides: Sequence[str]) -> None:
    """Check CONFIG and print all its values, defaults included, as YAML.

    \b
    chomp config show configs/quickstart.yaml
    """
    import yaml

    from chomp.config import config_warnings

    loaded = read_config(config_path, overrides)
    click.echo(yaml.safe_dump(loaded.model_dump(mode="json"), sort_keys=False), nl=False)
    for warning in config_warnings(loaded):
        click.echo(f"warning: {warning}", err=True)


@config.command("schema")
def config_schema() -> None:
    """Print the JSON schema, for editors that complete and check YAML.

    \b
    chomp config schema > chomp.schema.json
    """
    import json

    from chomp.config import config_schema

    click.echo(json.dumps(config_schema(), indent=2))


@config.command("reference")
def config_reference() -> None:
    """Print the reference of all fields as Markdown.

    \b
    chomp config reference | less
    """
    from chomp.config import config_reference

    click.echo(config_reference(), nl=False)
