"""`chomp data`."""

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from chomp.cli.options import FolderPath, config_options, read_config
from chomp.system.console import PrintConsole
from chomp.system.terminal import one_line, outlive_readers


@click.group()
def data() -> None:
    """Tokenise a corpus once, for `data.backend: tokens`; verify it; look into it.

    \b
    chomp data prepare configs/quickstart.yaml tokens/library
    """


@data.command("prepare")
@click.argument("config_path", metavar="CONFIG", type=click.Path(path_type=Path))
@click.argument("out", type=FolderPath())
@config_options
@click.option(
    "--shard-tokens",
    type=click.IntRange(1),
    default=1 << 25,
    show_default=True,
    metavar="N",
    help="Tokens after which a shard ends: what a kill can cost, and about what memory holds.",
)
def prepare(config_path: Path, out: Path, overrides: Sequence[str], shard_tokens: int) -> None:
    """Tokenise the corpus of CONFIG and write it to the folder OUT.

    Evaluation documents are kept apart as CONFIG says. Stopped or killed, the same command goes
    on with what is finished, and ends with the same bytes. A finished corpus stays as it is.

    \b
    chomp data prepare configs/quickstart.yaml tokens/library
    chomp train configs/quickstart.yaml -o data.backend=tokens -o data.tokens_dir=tokens/library
    """
    from chomp.commands.prepared import prepare_corpus

    outlive_readers()
    prepare_corpus(read_config(config_path, overrides), out, PrintConsole(), shard_tokens)


@data.command("verify")
@click.argument("folder", metavar="OUT", type=FolderPath())
def verify(folder: Path) -> None:
    """Read the prepared corpus OUT and compare each file with what was written.

    Exit code 1 if any is damaged.

    \b
    chomp data verify tokens/library
    """
    from chomp.commands.prepared import findings

    damaged = False
    for name, problems in findings(folder):
        click.echo(one_line(f"{name}: {'; '.join(problems) or 'good'}"))
        damaged |= bool(problems)
    sys.exit(int(damaged))


@data.command("show")
@click.argument("folder", metavar="OUT", type=FolderPath())
@click.option("--document", type=int, metavar="N", help="Show document N, counted from 0.")
@click.option("--evaluation", is_flag=True, help="Of the evaluation documents.")
@click.option("--json", "json_", is_flag=True, help="Print the document as one JSON object.")
def show(folder: Path, document: int | None, evaluation: bool, json_: bool) -> None:
    """Say what the prepared corpus OUT holds, or show one of its documents.

    The rows that `chomp trace` names are these numbers.

    \b
    chomp data show tokens/library
    chomp data show tokens/library --document 17
    """
    from chomp.commands.prepared import as_json, corpus_lines, document_lines, document_values

    if document is None:
        if evaluation or json_:
            raise click.UsageError("--evaluation and --json go with --document N")
        lines = corpus_lines(folder)
    else:
        values = document_values(folder, document, evaluation=evaluation)
        lines = [as_json(values)] if json_ else document_lines(values)
    for line in lines:
        click.echo(line)
