"""The program: a group of commands whose errors are clear lines and exit codes."""

import os
from typing import Any

import click

from chomp import __version__
from chomp.errors import ChompError
from chomp.system.terminal import OutputError, guard_streams, settle_streams


class _Group(click.Group):
    """Commands whose errors end in one clear line each, and the right exit code."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run a command, on a standard output and error that are safe."""
        guard_streams()
        try:
            return super().main(*args, **extra)
        finally:
            settle_streams()

    def invoke(self, ctx: click.Context) -> Any:
        words = [*ctx._protected_args, *ctx.args]
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            from chomp.cli.hints import hint

            if meant := hint(error, words):
                raise _Hinted(error, meant) from error
            raise
        except FileNotFoundError:
            if _is_in_a_folder():
                raise
            click.echo("error: the current folder has been removed; go to another: cd", err=True)
            ctx.exit(2)
        except OutputError as error:
            click.echo(f"error: standard output can't be written: {error.strerror}", err=True)
            ctx.exit(1)
        except ChompError as error:
            if ctx.params.get("debug"):
                raise
            show_error(error)
            ctx.exit(error.exit_code)


def _is_in_a_folder() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True


class _Hinted(click.UsageError):
    """A usage error with a hint."""

    def __init__(self, error: click.UsageError, meant: str):
        said = error.format_message().partition(" Did you mean ")[0]  # the hint is better
        stop = "" if said.endswith(".") else "."
        super().__init__(f"{said}{stop} {meant[:1].upper()}{meant[1:]}", error.ctx)


def show_error(error: ChompError) -> None:
    """Print an error."""
    start = "error: " if error.process is None else f"error: process {error.process}: "
    for line in str(error).split("\n"):
        click.echo(f"{start}{line}" if not line.startswith(" ") else line, err=True)


@click.group(
    cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, message="chomp %(version)s")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """Pretrain small Megalodon language models; a run resumes bit for bit.

    \b
    chomp init                              write a first config, quickstart.yaml
    chomp train quickstart.yaml             train on this machine's Python library
    chomp generate runs/RUN --prompt 'def'  let the trained model write
    chomp status runs/RUN                   how it is doing, what happened to it
    chomp watch runs                        its curves, samples and history on a live page
    """
