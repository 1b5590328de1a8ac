"""`chomp init`."""

import shlex
from pathlib import Path

import click

from chomp.cli.options import FolderPath
from chomp.system.console import PrintConsole

SHIPPED = {"quickstart": "quickstart.yaml", "100m": "megalodon-100m.yaml"}
MY_TEXT = "my-text"


@click.command()
@click.argument("which", type=click.Choice([*SHIPPED, MY_TEXT]), default="quickstart")
@click.option(
    "--dir",
    "folder",
    type=FolderPath(),
    default=Path(),
    metavar="DIR",
    help="Folder to write to, and where my-text looks for texts. [default: the current one]",
)
@click.option(
    "--vocab",
    type=click.IntRange(1),
    metavar="N",
    help="With my-text: make a tokenizer of N tokens of these texts, and use it.",
)
def init(which: str, folder: Path, vocab: int | None) -> None:
    """Write a first config, with comments that say what to change; overwrites nothing.

    \b
    chomp init                    a 1M model on this machine's Python library, in minutes on a CPU
    chomp init my-text --dir text the same on your own .txt, .md, .jsonl and .parquet files
    chomp init my-text --dir text --vocab 2048
                                  and a tokenizer of these: fewer tokens for the same text
    chomp init 100m               a 100M model on Zyda-2, from the Hugging Face Hub, for one GPU
    """
    from chomp.commands.starter import shipped_draft, write_draft
    from chomp.system.extras import is_importable
    from chomp.system.terminal import program_name

    if which == MY_TEXT:
        from chomp.commands.own_text import make_tokenizer, own_text_draft

        draft, found = own_text_draft(folder, vocab)
        click.echo(f"found  {found}")
        if vocab is not None:
            made = make_tokenizer(draft, folder, vocab, PrintConsole(stderr=True))
            own = made.compression[0]
            click.echo(f"made   {made.lines()[0]}, {own.bytes_per_token:.2f} bytes a token")
    elif vocab is not None:
        raise click.UsageError("--vocab is for my-text: the others have their tokenizers")
    else:
        draft = shipped_draft(SHIPPED[which], folder)
    written = write_draft(draft, folder)
    click.echo(f"wrote  {', '.join(map(str, written))}")
    dry = " --dry-run" if which == "100m" else ""
    if which == "100m" and not is_importable("datasets"):
        click.echo("needs  pip install 'chomp[hub]'")
    click.echo(f"next   {program_name()} train {shlex.quote(str(written[0]))}{dry}")
