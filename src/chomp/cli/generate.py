"""`chomp generate`."""

import sys
from math import isfinite
from pathlib import Path
from typing import Any

import click

from chomp.cli.options import (
    RunAndStep,
    ema_option,
    plugin_option,
    start_environment,
    trust_option,
)
from chomp.system.console import PrintConsole
from chomp.system.terminal import styled


def _finite(_: click.Context, __: click.Parameter, value: float | None) -> float | None:
    if value is not None and not isfinite(value):  # nan is within every range
        raise click.BadParameter(f"{value} is not a finite number")
    return value


def _read_prompt() -> str:
    if sys.stdin is None:  # closed
        return ""
    if sys.stdin.isatty():
        click.echo("prompt, ended with Ctrl-D:", err=True)
    return sys.stdin.buffer.read().decode(errors="replace")


@click.command()
@click.argument("run", type=RunAndStep(), metavar="RUN[:STEP]")
@click.option("--step", metavar="latest|STEP", help="Another way to write RUN:STEP.")
@click.option("--prompt", help="Text to continue. [default: standard input]")
@click.option(
    "--max-tokens",
    default=256,
    show_default=True,
    type=click.IntRange(1),
    help="Longest continuation.",
)
@click.option(
    "--temperature",
    default=1.0,
    show_default=True,
    type=click.FloatRange(0),
    callback=_finite,
    help="Divides the logits; 0 takes the likeliest token each time.",
)
@click.option("--top-k", type=click.IntRange(1), help="Choose among the K likeliest tokens.")
@click.option(
    "--top-p",
    type=click.FloatRange(0, 1, min_open=True),
    callback=_finite,
    help="Choose among the likeliest tokens of this total probability.",
)
@click.option(
    "--seed",
    default=0,
    show_default=True,
    type=click.IntRange(0, 2**32 - 1),
    help="The same seed gives the same text.",
)
@click.option(
    "--samples",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="Continuations to write, one after the other.",
)
@ema_option
@trust_option
@plugin_option
def generate(run: tuple[Path, str], step: str | None, prompt: str | None, **options: Any) -> None:
    """Continue a prompt with the model of a run, token by token.

    \b
    chomp generate runs/first --prompt 'def main(' --temperature 0.8
    echo 'import os' | chomp generate runs/first:500 --samples 3
    """
    from chomp.run.run_folder import RunFolder

    run_dir, named = run
    if step is not None and named not in ("latest", step):
        raise click.UsageError(f"the step is {named} in RUN:STEP and {step} in --step; give one")
    RunFolder(run_dir).require_run()  # before anyone types a prompt
    text = _read_prompt() if prompt is None else prompt
    start_environment()
    from chomp.commands.generate import GenerateRequest, generate_text
    from chomp.generation import Sampling

    # Into a file or a program the text goes as it is.
    out = sys.stdout if sys.stdout.isatty() else styled(sys.stdout)

    names = ("max_tokens", "temperature", "top_k", "top_p")
    sampling = Sampling(**{name: options.pop(name) for name in names})
    request = GenerateRequest(run_dir, step or named, text, sampling, **options)
    for piece in generate_text(request, PrintConsole(stderr=True)):
        click.echo(piece, file=out, nl=False)
