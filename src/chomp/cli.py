"""The commands. Nothing heavy is imported at module level: help answers at once."""

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from chomp import __version__
from chomp.errors import ChompError

OVERRIDE_HELP = "Set a value of the configuration, as YAML; may be given several times."


class _Group(click.Group):
    """Commands whose errors end in one clear line each, and the right exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ChompError as error:
            if ctx.params.get("debug"):
                raise
            for line in str(error).splitlines():
                click.echo(f"error: {line}" if not line.startswith(" ") else line, err=True)
            ctx.exit(error.exit_code)


@click.group(
    cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, message="chomp %(version)s")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """Pretrain small Megalodon language models; a run resumes bit for bit.

    \b
    chomp train configs/quickstart.yaml     train on this machine's Python library
    chomp generate runs/RUN --prompt 'def'  let the trained model write
    """


def _override_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "-o", "--override", "overrides", multiple=True, metavar="KEY=VALUE", help=OVERRIDE_HELP
    )(command)


@main.command()
@click.argument("config_path", metavar="[CONFIG]", required=False, type=click.Path(path_type=Path))
@_override_option
@click.option(
    "--run-dir", type=click.Path(path_type=Path), help="Run folder. [default: a new one in runs/]"
)
@click.option("--resume", metavar="latest|STEP", help="Go on with the run in --run-dir.")
@click.option(
    "--allow-change",
    multiple=True,
    metavar="KEY",
    help="Resume although this value of the configuration has changed.",
)
@click.option("--dry-run", is_flag=True, help="Compile and take one step; write nothing.")
def train(
    config_path: Path | None,
    overrides: Sequence[str],
    run_dir: Path | None,
    resume: str | None,
    allow_change: Sequence[str],
    dry_run: bool,
) -> None:
    """Train the model that CONFIG describes, or go on with a run.

    CONFIG may be left out with --resume: the run's own configuration is used then.

    \b
    chomp train configs/quickstart.yaml -o optim.lr=1e-3
    chomp train --run-dir runs/first --resume latest -o train.steps=2000
    """
    started = time.perf_counter()
    from chomp.config import load_config
    from chomp.run_folder import RunFolder, new_run_path

    if resume and run_dir is None:
        raise click.UsageError("--resume needs --run-dir, the folder of the run to go on with")
    if config_path is None and not resume:
        raise click.UsageError("give a CONFIG, for example configs/quickstart.yaml")
    if allow_change and not resume:
        raise click.UsageError("--allow-change goes with --resume")
    folder = RunFolder(Path("."))
    if resume and run_dir is not None:
        folder = RunFolder(run_dir)
        folder.require_run()
    source = folder.resolved_config if config_path is None else config_path
    config = load_config(source, overrides)
    kept = folder.original_config if config_path is None else config_path
    original = kept.read_text(encoding="utf-8")
    if not resume:
        folder = RunFolder(run_dir or Path(config.logging.run_dir or new_run_path()))
    _prepare_environment()
    from chomp import run

    if dry_run:
        run.dry_run(config)
        return
    request = run.Request(config, original, folder, resume, allow_change, started)
    sys.exit(run.train(request))


@main.command()
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option("--step", default="latest", metavar="latest|STEP", help="Checkpoint to use.")
@click.option("--prompt", help="Text to continue. [default: standard input]")
@click.option("--max-tokens", default=256, show_default=True, type=click.IntRange(1))
@click.option("--temperature", default=1.0, show_default=True, type=click.FloatRange(0))
@click.option("--top-k", type=click.IntRange(1), help="Choose among the K likeliest tokens.")
@click.option(
    "--top-p",
    type=click.FloatRange(0, 1, min_open=True),
    help="Choose among the likeliest tokens of this total probability.",
)
@click.option("--seed", default=0, show_default=True, help="The same seed gives the same text.")
@click.option("--samples", default=1, show_default=True, type=click.IntRange(1))
def generate(run_dir: Path, step: str, prompt: str | None, **options: Any) -> None:
    """Continue a prompt with the model of a run, token by token.

    \b
    chomp generate runs/first --prompt 'def main(' --temperature 0.8
    echo 'import os' | chomp generate runs/first --step 500 --samples 3
    """
    text = sys.stdin.read() if prompt is None else prompt
    _prepare_environment()
    from chomp.generate_command import GenerateRequest, generate_text
    from chomp.tracking.console import printable

    to_terminal = sys.stdout.isatty()

    def write(text: str) -> None:
        click.echo(printable(text) if to_terminal else text, nl=False)

    generate_text(GenerateRequest(run_dir, step, text, **options), write)


def _prepare_environment() -> None:
    """Set what must stand before JAX is imported."""
    from chomp.runtime import prepare_environment

    for warning in prepare_environment():
        click.echo(f"warning: {warning}", err=True)


@main.group()
def config() -> None:
    """Look at configurations: resolved values, schema, reference.

    \b
    chomp config show configs/quickstart.yaml -o train.steps=10
    """


@config.command("show")
@click.argument("config_path", metavar="CONFIG", type=click.Path(path_type=Path))
@_override_option
def config_show(config_path: Path, overrides: Sequence[str]) -> None:
    """Check CONFIG and print all its values, defaults included, as YAML.

    \b
    chomp config show configs/quickstart.yaml
    """
    import yaml

    from chomp.config import config_warnings, load_config

    loaded = load_config(config_path, overrides)
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


if __name__ == "__main__":
    main()
