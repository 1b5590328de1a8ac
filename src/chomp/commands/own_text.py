"""A first config for text of one's own: what a folder holds, and what suits it."""

import glob
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import tokenizers

from chomp.commands.starter import TOKENIZER, Draft, check_free, scalar, shipped, shipped_draft
from chomp.commands.tokenizer import TokenizerRequest, TrainedTokenizer, train_tokenizer
from chomp.config import load_config
from chomp.data.sources.formats import LINES_SUFFIXES, read_file
from chomp.data.sources.patterns import find_paths
from chomp.errors import DataError
from chomp.system.console import Console
from chomp.system.extras import require_package

NAME = "my-text.yaml"
OWN_TOKENIZER = "tokenizer.json"
KINDS = (".txt", ".md", *LINES_SUFFIXES, ".parquet")
TEXT_KEY = "text"
SAMPLE_ROWS, SAMPLE_CHARACTERS = 20, 100_000
"""Rows and characters read to choose a text's key and a tokenizer."""
WORTH_IT = 0.6
"""Tokens for a byte at which the shipped BPE, made of Python and English, is better than bytes."""
# As the shipped config has them.
FILES_LINE = "  files: [text/]"
BYTES = ("vocab_size: 384 ", "tokenizer: {kind: byte, byte_offset: 3, add_eos: true}")


class Kind(NamedTuple):
    """The files of one kind."""

    pattern: str
    paths: list[str]
    text_key: str | None
    """Where it isn't `text`."""

    @property
    def entry(self) -> str:
        """How `data.files` names them."""
        pattern = scalar(self.pattern)
        return (
            f"{{path: {pattern}, text_key: {scalar(self.text_key)}}}" if self.text_key else pattern
        )


def own_text_draft(folder: Path, vocab: int | None = None) -> tuple[Draft, str]:
    """Make a config for the texts of a folder; returns a line about what was found, too.

    Args:
        folder: of the texts, and of the config.
        vocab: tokens of a tokenizer that `make_tokenizer` will put there; None: the shipped one or
            bytes, what suits the texts.

    Raises:
        DataError: there are none, or they can't be read.
    """
    kinds = _find(folder)
    draft = shipped_draft(NAME, folder)
    entries = ", ".join(kind.entry for kind in kinds)
    text = draft.text.replace(FILES_LINE, f"  files: [{entries}]", 1)
    paths = [path for kind in kinds for path in kind.paths]
    megabytes = sum(Path(path).stat().st_size for path in paths) / 1e6
    found = f"{len(paths):,} {'files' if len(paths) > 1 else 'file'}, {megabytes:.2f} MB"
    if vocab is not None:
        return Draft(NAME, _with_tokenizer(text, folder / OWN_TOKENIZER, vocab)), found
    bpe = tokenizers.Tokenizer.from_str(shipped(TOKENIZER))
    sample = "".join(itertools.chain.from_iterable(map(_sample, kinds)))[:SAMPLE_CHARACTERS]
    if len(bpe.encode(sample).ids) < WORTH_IT * len(sample.encode()):
        text = _with_tokenizer(text, folder / TOKENIZER, bpe.get_vocab_size())
        return Draft(NAME, text, (TOKENIZER,)), f"{found}, the quickstart's tokenizer"
    return Draft(NAME, text), f"{found}, a token for each byte"


def make_tokenizer(draft: Draft, folder: Path, vocab: int, console: Console) -> TrainedTokenizer:
    """Make the tokenizer that a draft names, of the texts that a run of it trains on.

    Raises:
        ConfigError: the draft's file or the tokenizer's is there, or the vocabulary is too small.
        DataError: the texts can't be read, or there are too few.
    """
    path, out = folder / draft.name, folder / OWN_TOKENIZER
    check_free([path, out])
    # Which documents are held out of training doesn't depend on the tokenizer.
    as_bytes = ["model.vocab_size=384", "data.tokenizer={kind: byte, byte_offset: 3}"]
    config = load_config(path, as_bytes, draft.text)
    return train_tokenizer(TokenizerRequest(config, out, vocab), console)


def _with_tokenizer(text: str, path: Path, vocab: int) -> str:
    """Return the config's text with a tokenizer's file in the place of bytes."""
    size, tokenizer = BYTES
    named = f"tokenizer: {{kind: hf, hf_name_or_path: {scalar(str(path))}, add_eos: true}}"
    return text.replace(size, f"vocab_size: {vocab} ", 1).replace(tokenizer, named, 1)


def _find(folder: Path) -> list[Kind]:
    """Return the kinds of texts that lie in a folder; those below it, where none do."""
    for place in ("*", "**/*"):
        found = []
        for suffix in KINDS:
            pattern = str(Path(glob.escape(str(folder)), f"{place}{suffix}"))
            try:
                paths = [file.path for file in find_paths("DIR", [pattern], TEXT_KEY).files]
            except DataError:  # none of this kind
                continue
            if suffix == ".parquet":
                require_package("pyarrow", paths[0])
            found.append(Kind(pattern, paths, _text_key(paths[0])))
        if found:
            return found
    raise DataError(
        f"{folder}: no file here to train on; known are {', '.join(KINDS)}: put some there, or "
        "name their folder with --dir"
    )


def _text_key(path: str) -> str | None:
    """Return the key of a file's texts: the one with the longest, unless it is `text`."""
    columns = _columns(path)
    if not columns or TEXT_KEY in columns:
        return None
    sizes = {key: len("".join(_texts(path, key))) for key in columns}
    key = max(columns, key=lambda column: sizes[column])
    if not sizes[key]:
        raise DataError(f"{path}: none of its keys holds text; there are: {', '.join(columns)}")
    return key


def _columns(path: str) -> tuple[str, ...]:
    if path.endswith(".parquet"):
        import pyarrow.parquet as pq

        return tuple(pq.read_schema(path).names)
    if not path.endswith(LINES_SUFFIXES):
        return ()
    with open(path, "rb") as file:
        row = next((row for _, row in read_file(file, path, 0, TEXT_KEY)), None)
    return () if row is None else row.columns


def _texts(path: str, key: str) -> Iterator[str]:
    with open(path, "rb") as file:
        for _, row in itertools.islice(read_file(file, path, 0, key), SAMPLE_ROWS):
            yield (row.text or "")[:SAMPLE_CHARACTERS]


def _sample(kind: Kind) -> Iterator[str]:
    return _texts(kind.paths[0], kind.text_key or TEXT_KEY)
