"""Options and checks that several commands share."""

import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from chomp.errors import ConfigError
from chomp.run.run_folder import split_step
from chomp.system.terminal import printable, styled

if TYPE_CHECKING:
    from chomp.config import Config

ENVIRONMENT = f"{__name__}.environment"
OVERRIDE_HELP = "Set a value of the configuration, as YAML; may be given several times."


def config_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `-o KEY=VALUE` and `--plugin MODULE` to a command that reads a CONFIG."""
    return click.option(
        "-o", "--override", "overrides", multiple=True, metavar="KEY=VALUE", help=OVERRIDE_HELP
    )(plugin_option(command))


def plugin_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--plugin MODULE` to a command; the modules are loaded before it is called."""
    return click.option(
        "--plugin",
        "plugins",
        multiple=True,
        metavar="MODULE",
        expose_value=False,
        callback=_load_plugins,
        help="Load a Python module that registers models, data sources or trackers: the name of "
        "an installed one, or the path of a .py file.",
    )(command)


def trust_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--trust-remote-code` to a command that opens a run: nothing else runs its code."""
    return click.option(
        "--trust-remote-code",
        is_flag=True,
        help="Run the Python code that comes with the run's tokenizer, if it has any.",
    )(command)


def ema_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--ema` to a command that reads a run's parameters."""
    return click.option(
        "--ema",
        is_flag=True,
        help="Take the average of the parameters (train.ema) instead of the newest ones.",
    )(command)


def _load_plugins(context: click.Context, _: click.Parameter, modules: Sequence[str]) -> None:
    from chomp.system.plugins import load_plugin

    if modules and not context.resilient_parsing:
        start_environment()  # they may import JAX
        for module in modules:
            load_plugin(module)


def read_config(path: Path, overrides: Sequence[str] = (), *, of_a_run: bool = False) -> "Config":
    """Load the CONFIG of a command; of one from a run folder only the user's word runs code."""
    return read_config_and_text(path, overrides, of_a_run=of_a_run)[0]


def read_config_and_text(
    path: Path, overrides: Sequence[str] = (), *, of_a_run: bool = False
) -> tuple["Config", str]:
    """Return the CONFIG of a command as `read_config` does, and its text, read once."""
    from chomp.config import config_text, load_config
    from chomp.run.folder_config import is_of_a_run, load_folder_config

    if path.is_dir() or not path.exists():
        from chomp.cli.hints import not_a_config

        reason = "Is a directory" if path.is_dir() else "No such file or directory"
        meant = not_a_config(path)
        raise ConfigError([f"{path}: can't be read: {reason}{f'; {meant}' if meant else ''}"])
    text = config_text(path)
    if not (of_a_run or is_of_a_run(path)):
        return load_config(path, overrides, text), text
    config, warnings = load_folder_config(path, overrides)
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    return config, text


def process_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say which of a run's processes this one is."""
    number = click.IntRange(min=0)
    for option in (
        click.option("--process-id", type=number, help="Number of this process, from 0."),
        click.option("--processes", type=number, help="How many processes the run has."),
        click.option(
            "--coordinator", metavar="HOST:PORT", help="Where process 0 lets the others meet."
        ),
    ):
        command = option(command)
    return command


class FolderPath(click.Path):
    """A folder's path; an empty one, as an unset variable gives, isn't the current folder."""

    def __init__(self):
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path."""
        if value == "":
            self.fail("must not be empty; for the current folder give a dot", param, ctx)
        return super().convert(value, param, ctx)


class RunAndStep(click.ParamType[tuple[Path, str]]):
    """A run folder, and after a colon a step of it."""

    name = "run[:step]"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Path, str]:
        """Return both; without a step `latest`."""
        run, step = split_step(value)
        return FolderPath().convert(run, param, ctx), step


def start_environment() -> None:
    """Set what must stand before JAX is imported; once in a command."""
    from chomp.system.jax_runtime import prepare_environment

    if context := click.get_current_context(silent=True):
        if context.meta.get(ENVIRONMENT):
            return
        context.meta[ENVIRONMENT] = True
    for warning in prepare_environment():
        click.echo(f"warning: {warning}", err=True)


def rich_console() -> Any:
    """Return a console for tables."""
    from rich.console import Console

    class Escaping(Console):
        """Makes text of strings; those of a table may come from outside."""

        def render_str(self, text: str, **how: Any) -> Any:
            """Return the text with what would steer a terminal as escapes."""
            return super().render_str(printable(text), **how)

    # A pipe is no reason to cut a table short.
    width = None if sys.stdout.isatty() else 160
    return Escaping(file=styled(sys.stdout), highlight=False, markup=False, width=width)


def stop_runs_on_signals() -> None:
    """Handle signals by an exception, so that no run outlives the proof that it is a part of."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _leave)


def _leave(number: int, frame: Any) -> NoReturn:
    sys.exit(128 + number)
