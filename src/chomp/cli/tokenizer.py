"""`chomp tokenizer`."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chomp.cli.options import OVERRIDE_HELP, config_options, plugin_option, read_config
from chomp.system.console import PrintConsole
from chomp.system.terminal import one_line

if TYPE_CHECKING:
    from chomp.config import Config

CONFIG_SUFFIXES = (".yaml", ".yml")


@click.group()
def tokenizer() -> None:
    """Make a tokenizer from your own texts; check one.

    \b
    chomp tokenizer train config.yaml -o tokenizer.json --vocab 8192
    """


@tokenizer.command("train")
@click.argument("texts", metavar="CONFIG|FILES...", nargs=-1, required=True)
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), required=True, help="The file to write."
)
@click.option("--vocab", default=8192, show_default=True, metavar="N", help="Tokens at most.")
@click.option(
    "--bytes",
    "most_bytes",
    type=click.IntRange(1),
    default=1 << 30,
    show_default=True,
    metavar="N",
    help="Text to read at most; several sources give parts of it by their weights.",
)
@click.option("--text-key", metavar="KEY", help="With FILES: field of the text. [default: text]")
@click.option(
    "--compare",
    multiple=True,
    metavar="NAME",
    help="Measure another tokenizer beside it: a tokenizer.json, a folder, a name on the hub.",
)
@click.option("--override", "overrides", multiple=True, metavar="KEY=VALUE", help=OVERRIDE_HELP)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@plugin_option
def train(texts: Sequence[str], as_json: bool, **options: Any) -> None:
    """Make a byte-level BPE tokenizer of CONFIG's training documents, or of FILES.

    Documents that a run is evaluated on are left out; compression is measured on them.

    \b
    chomp tokenizer train config.yaml -o tokenizer.json --vocab 8192
    chomp tokenizer train 'books/*.txt' notes.jsonl -o tokenizer.json --compare gpt2
    """
    config = _config(texts, options.pop("text_key"), options.pop("overrides"))
    from chomp.commands.tokenizer import TokenizerRequest, train_tokenizer

    request = TokenizerRequest(config, vocab_size=options.pop("vocab"), **options)
    made = train_tokenizer(request, PrintConsole(stderr=True))
    _show(made, as_json)


@tokenizer.command("check")
@click.argument("name", metavar="TOKENIZER|CONFIG")
@click.argument("texts", metavar="[FILES]...", nargs=-1)
@click.option(
    "--bytes",
    "most_bytes",
    type=click.IntRange(1),
    default=10_000_000,
    show_default=True,
    metavar="N",
    help="Text to read at most.",
)
@click.option("--text-key", metavar="KEY", help="With FILES: field of the text. [default: text]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@config_options
def check(
    name: str,
    texts: Sequence[str],
    overrides: Sequence[str],
    most_bytes: int,
    text_key: str | None,
    as_json: bool,
) -> None:
    """Encode texts and decode them: what comes back, how many tokens, which ids are unused.

    The texts are FILES, or the training documents of CONFIG. Exit code 1 if a document doesn't
    come back as it was.

    \b
    chomp tokenizer check config.yaml
    chomp tokenizer check tokenizer.json 'books/*.txt'
    """
    from chomp.commands.tokenizer import check_tokenizer
    from chomp.config import TokenizerConfig
    from chomp.data import load_tokenizer

    if name.endswith(CONFIG_SUFFIXES):
        config = read_config(Path(name), overrides)
        named = config.data.tokenizer.model_copy(update={"add_bos": False, "add_eos": False})
        config = _config(texts, text_key, ()) if texts else config
    elif not texts:
        raise click.UsageError("give FILES to try the tokenizer on, or a CONFIG")
    else:
        named = TokenizerConfig(kind="hf", hf_name_or_path=name)
        config = _config(texts, text_key, ())
    found = check_tokenizer(load_tokenizer(named), config.data, most_bytes)
    _show(found, as_json)
    sys.exit(int(found.changed > 0))


def _config(texts: Sequence[str], text_key: str | None, overrides: Sequence[str]) -> "Config":
    """Read the config that is named, or make one of files."""
    configs = [text for text in texts if text.endswith(CONFIG_SUFFIXES)]
    if configs and len(texts) > 1:
        raise click.UsageError(f"give one CONFIG or FILES, not both (got {configs[0]} and others)")
    if configs:
        if text_key:
            raise click.UsageError("--text-key goes with FILES; the CONFIG has data.text_key")
        return read_config(Path(configs[0]), overrides)
    from chomp.commands.tokenizer import files_config

    return files_config(texts, text_key)


def _show(found: Any, as_json: bool) -> None:
    lines = [json.dumps(found.as_values())] if as_json else map(one_line, found.lines())
    for line in lines:
        click.echo(line)
