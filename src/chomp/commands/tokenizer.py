"""Tokenizers made from a user's texts, and looked at."""

import itertools
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from chomp.commands.starter import TOKENIZER, shipped
from chomp.config import Config, TokenizerConfig, config_from_mapping
from chomp.config.data import DataConfig
from chomp.data import load_tokenizer
from chomp.data.all_sources import evaluation_files, named_configs, reading_of, source_named
from chomp.data.corpus import SEEDS, TextSplits, find_texts
from chomp.data.sources.read_policy import read_policy
from chomp.data.tokenizers.base import Tokenizer
from chomp.data.tokenizers.train import LEAST_VOCABULARY, train_bpe
from chomp.errors import ConfigError, DataError, DiskError
from chomp.system.atomic_file import remedy, replace_text
from chomp.system.console import Console

MEASURED_BYTES = 10_000_000
"""Text that compression is measured on, at most."""
BLOCK = 64
"""Documents encoded together."""


def files_config(files: Sequence[str], text_key: str | None) -> Config:
    """Return the configuration of a run on files. Raises ConfigError if a value is wrong."""
    data: dict[str, Any] = {"backend": "files", "files": list(files)}
    return config_from_mapping({"data": data | ({"text_key": text_key} if text_key else {})})


class SourceTexts:
    """The texts of a config: those that a run trains on, and those that it is evaluated on.

    Args:
        config: the section `data`.

    Raises:
        ConfigError: a source holds tokens, not texts.
        DataError: a source can't be read.
    """

    def __init__(self, config: DataConfig):
        self._config = config
        self._splits = {name: self._open(name) for name in named_configs(config)}

    def _open(self, name: str) -> TextSplits:
        alone = named_configs(self._config)[name]
        if alone.backend == "tokens":
            raise ConfigError(
                [
                    f"{f'data.sources, {name}' if name else 'data'}: holds tokens, which are some "
                    "tokenizer's already; name the texts that they come from"
                ]
            )
        reading = reading_of(alone, read_policy(alone, threading.Event()))
        with source_named(name):
            return find_texts(alone, reading, only_evaluated=evaluation_files(self._config))

    def training(self, most: int) -> Iterator[str]:
        """Yield the training documents in the order in which a run reads them.

        Args:
            most: bytes at most; each of several sources gives a part by its weight, no document
                twice.
        """
        weights = [source.weight for source in self._config.sources] or [1.0]
        for (name, texts), weight in zip(self._splits.items(), weights, strict=True):
            room = most * weight / sum(weights)
            seed = named_configs(self._config)[name].seed % SEEDS
            held_out = texts.held_out(evaluate=True)
            for document in texts.split.stream(
                seed, texts.split.window, repeat=False, held_out=held_out
            ):
                room -= byte_length(document.text)
                if room < 0:
                    break
                if document.text:
                    yield document.text

    def evaluation(self) -> list[str]:
        """Return the evaluation documents, up to `MEASURED_BYTES`."""
        found: list[str] = []
        size = 0
        for texts in self._splits.values():
            for document in texts.evaluation.documents():
                if found and size >= MEASURED_BYTES:
                    break
                found.append(document.text)
                size += byte_length(document.text)
        return found


def _documents(count: int) -> str:
    return f"{count:,} document{'s' if count != 1 else ''}"


def byte_length(text: str) -> int:
    """Return the size of a text in UTF-8 bytes."""
    return len(text.encode("utf-8", "replace"))


@dataclass(frozen=True)
class TokenizerRequest:
    """A request for a tokenizer.

    Attributes:
        config: whose training documents it is made from.
        out: the file to write.
        vocab_size: tokens at most.
        most_bytes: text read at most.
        compare: other tokenizers to measure beside it: files, folders, names on the hub.
    """

    config: Config
    out: Path
    vocab_size: int
    most_bytes: int = 1 << 30
    compare: Sequence[str] = ()


@dataclass(frozen=True)
class Compression:
    """How well a tokenizer compresses texts.

    Attributes:
        name: of the tokenizer.
        vocab_size: its tokens.
        tokens: that the texts have.
        bytes_per_token: UTF-8 bytes of the texts by tokens.
    """

    name: str
    vocab_size: int
    tokens: int
    bytes_per_token: float


@dataclass(frozen=True)
class TrainedTokenizer:
    """A tokenizer that was made.

    Attributes:
        out: its file.
        vocab_size: its tokens.
        documents: it was made from.
        bytes: of these.
        measured_documents: documents that compression is measured on, which it hasn't seen.
        measured_bytes: of these.
        compression: its own, and that of others.
    """

    out: Path
    vocab_size: int
    documents: int
    bytes: int
    measured_documents: int
    measured_bytes: int
    compression: Sequence[Compression]

    def as_values(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self) | {"out": str(self.out)}

    def lines(self) -> list[str]:
        """Return what a person reads of it."""
        return [
            f"{self.out}: {self.vocab_size:,} tokens, from {_documents(self.documents)} of "
            f"{self.bytes:,} bytes",
            f"measured on {_documents(self.measured_documents)} of {self.measured_bytes:,} bytes "
            "that it hasn't seen:",
            "",
            "bytes/token       tokens  vocabulary",
            *(
                f"{each.bytes_per_token:11.3f} {each.tokens:12,} {each.vocab_size:11,}  {each.name}"
                for each in self.compression
            ),
            "",
            "use it with:",
            f"  model: {{vocab_size: {self.vocab_size}}}",
            f"  data: {{tokenizer: {{kind: hf, hf_name_or_path: {self.out}, add_eos: true}}}}",
        ]


def train_tokenizer(request: TokenizerRequest, console: Console) -> TrainedTokenizer:
    """Make a tokenizer of a config's training documents, write it, and measure it.

    Args:
        request: what is wanted.
        console: shows what is going on.

    Raises:
        ConfigError: the vocabulary is too small, or the config names no texts.
        DataError: the texts can't be read, or the file is there already.
        DiskError: the file can't be written.
    """
    if request.vocab_size < LEAST_VOCABULARY:
        raise ConfigError(
            [
                f"--vocab: must be at least {LEAST_VOCABULARY}, for the control tokens and each "
                f"byte (got {request.vocab_size})"
            ]
        )
    if request.out.exists():
        raise DataError(f"{request.out}: is there already; name another file, or remove it")
    if not request.out.parent.is_dir():
        raise DiskError(f"{request.out.parent}: there is no such folder; make it first")
    others = {name: load_tokenizer(_named(name)) for name in request.compare}
    texts = SourceTexts(request.config.data)
    measured = texts.evaluation()
    drawn: Counter[str] = Counter()
    console.message("reading the training documents and merging pairs ...")
    made = train_bpe(_counted(texts.training(request.most_bytes), drawn), request.vocab_size)
    if not drawn["documents"]:
        raise DataError(
            f"--bytes: the first document is larger than {request.most_bytes:,} bytes; give more"
        )
    try:
        replace_text(request.out, made.to_str())
    except OSError as error:
        raise DiskError(f"{request.out}: can't be written: {error}{remedy(error)}") from error
    size = made.get_vocab_size()
    if size < request.vocab_size:
        console.warn(f"the texts have no more pairs that repeat: {size:,} tokens")
    return TrainedTokenizer(
        *(request.out, size, drawn["documents"], drawn["bytes"]),
        *(len(measured), sum(map(byte_length, measured))),
        list(_compressions(made, others, measured)),
    )


def _named(name: str) -> TokenizerConfig:
    return TokenizerConfig(kind="hf", hf_name_or_path=name)


def _counted(texts: Iterator[str], counts: Counter[str]) -> Iterator[str]:
    for text in texts:
        counts.update(documents=1, bytes=byte_length(text))
        yield text


def _compressions(
    made: tokenizers.Tokenizer, others: Mapping[str, Tokenizer], texts: Sequence[str]
) -> Iterator[Compression]:
    size = sum(map(byte_length, texts))

    def compression(name: str, vocab_size: int, tokens: int) -> Compression:
        return Compression(name, vocab_size, tokens, size / max(1, tokens))

    for name, bpe in {
        "this one": made,
        "the quickstart's, of Python": tokenizers.Tokenizer.from_str(shipped(TOKENIZER)),
    }.items():
        tokens = sum(len(bpe.encode(text).ids) for text in texts)
        yield compression(name, bpe.get_vocab_size(), tokens)
    for name, other in others.items():
        tokens = sum(map(len, other.encode_batch(list(texts))))
        yield compression(name, other.vocab_size, tokens)
    yield compression("bytes", 256, size)


@dataclass(frozen=True)
class TokenizerCheck:
    """What was found out about a tokenizer.

    Attributes:
        vocab_size: ids are below this.
        special: ids of the control tokens by name; None where there is none.
        documents: that were encoded and decoded.
        bytes: of these.
        tokens: of these, without control tokens.
        changed: number of documents that didn't come back as they were.
        first_changed: where the first of these differs.
        unused: ids that occur in none of the documents, control tokens left out.
    """

    vocab_size: int
    special: Mapping[str, int | None]
    documents: int
    bytes: int
    tokens: int
    changed: int
    first_changed: str
    unused: int

    def as_values(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self) | {"bytes_per_token": self.bytes / max(1, self.tokens)}

    def lines(self) -> list[str]:
        """Return what a person reads of it."""
        special = ", ".join(
            f"{name} {'none' if found is None else found}" for name, found in self.special.items()
        )
        trip = (
            f"{self.changed:,} of {_documents(self.documents)} changed; the first: "
            f"{self.first_changed}"
            if self.changed
            else f"{_documents(self.documents)}, all as they were"
        )
        ids = self.vocab_size
        return [
            f"vocabulary   {ids:,} ids; {self.unused:,} of them ({self.unused / ids:.0%}) are in "
            "none of these documents",
            f"special      {special}",
            f"round trip   {trip}",
            f"compression  {self.bytes / max(1, self.tokens):.3f} bytes a token: {self.bytes:,} "
            f"bytes, {self.tokens:,} tokens",
        ]


def check_tokenizer(tokenizer: Tokenizer, config: DataConfig, most: int) -> TokenizerCheck:
    """Encode a config's training documents, decode them, and count.

    Args:
        tokenizer: to check, which adds no control tokens.
        config: the section `data`.
        most: bytes of text at most.

    Raises:
        ConfigError: the config names no texts.
        DataError: they can't be read.
    """
    seen = np.zeros(tokenizer.vocab_size, bool)
    counts: Counter[str] = Counter()
    first = ""
    texts = _counted(SourceTexts(config).training(most), counts)
    while block := list(itertools.islice(texts, BLOCK)):
        for text, ids in zip(block, tokenizer.encode_batch(block), strict=True):
            seen[ids] = True
            counts["tokens"] += len(ids)
            back = tokenizer.decode(ids.tolist())
            if back != text:
                counts["changed"] += 1
                first = first or _difference(text, back)
    if not counts["documents"]:
        raise DataError(f"--bytes: the first document is larger than {most:,} bytes; give more")
    special = {"pad": tokenizer.pad_id, "bos": tokenizer.bos_id, "eos": tokenizer.eos_id}
    seen[[found for found in special.values() if found is not None]] = True
    return TokenizerCheck(
        *(tokenizer.vocab_size, special),
        *(counts[name] for name in ("documents", "bytes", "tokens", "changed")),
        first_changed=first,
        unused=int(np.count_nonzero(~seen)),
    )


def _difference(text: str, back: str) -> str:
    at = next(
        (i for i, (a, b) in enumerate(zip(text, back, strict=False)) if a != b),
        min(len(text), len(back)),
    )
    return f"{text[at : at + 20]!r} becomes {back[at : at + 20]!r}"
