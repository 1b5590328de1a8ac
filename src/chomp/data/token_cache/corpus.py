"""A prepared corpus, opened: any document's tokens at once, by its number."""

import bisect
import functools
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from chomp.config.data import DataConfig, TokenizerConfig
from chomp.data.packing import TokenizedDocument
from chomp.data.sources.documents import Shard
from chomp.data.sources.fingerprint import FULL_DIGEST_BYTES, Fingerprint
from chomp.data.sources.local import Corpus
from chomp.data.sources.rows import Row
from chomp.data.token_cache.array_file import ADVICE, ArrayFile, ArraySlice
from chomp.data.token_cache.files import (
    MANIFEST,
    PROGRESS,
    RECORD,
    TOKENIZER,
    Manifest,
    ShardInfo,
    damage,
    manifest_from_values,
    read_json,
    token_type,
)
from chomp.data.tokenizers.base import Tokenizer
from chomp.data.tokenizers.load import load_tokenizer
from chomp.errors import DataError
from chomp.types import ROW_BITS

FIRST_TOKENS = 1000
"""Enough for the first words of a document."""


class TokenShards:
    """Documents numbered through several shards, whose files are opened when they are needed.

    Args:
        folder: the corpus's folder.
        shards: its shards, in order.
        dtype: type of the tokens.
    """

    def __init__(self, folder: Path, shards: Sequence[ShardInfo], dtype: np.dtype):
        self._folder, self._shards, self._dtype = folder, shards, dtype
        self._ends = list(itertools.accumulate(shard.documents for shard in shards))
        self._open = functools.lru_cache(OPEN_SHARDS)(self._opened)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def document(self, number: int, epoch: int = 0) -> TokenizedDocument:
        """Return a document; its key is its number, its tokens are read when they are used.

        Raises DataError if its shard is damaged.
        """
        shard, row = self._find(number)
        tokens, records = self._open(shard)
        record = records.read(row, 1)[0].item()
        start, size, bytes_, characters, _, skipped, truncated, repaired = record
        return TokenizedDocument(
            *(
                cast(np.ndarray, ArraySlice(tokens, start, size)),
                number,
                truncated,
                repaired,
                skipped,
                epoch,
            ),
            *(characters, bytes_),
        )

    def source(self, number: int) -> int:
        """Return a document's key in the corpus that it was prepared from; -1 if it has none."""
        shard, row = self._find(number)
        return int(self._open(shard)[1].read(row, 1)["source"][0])

    def sources(self) -> frozenset[int]:
        """Return the keys of all documents in the corpus that they were prepared from."""
        every = (self._open(shard)[1].read_all() for shard in range(len(self._shards)))
        return frozenset(itertools.chain.from_iterable(all_["source"].tolist() for all_ in every))

    def _find(self, number: int) -> tuple[int, int]:
        shard = bisect.bisect_right(self._ends, number)
        return shard, number - (self._ends[shard - 1] if shard else 0)

    def _opened(self, shard: int) -> tuple[ArrayFile, ArrayFile]:
        info = self._shards[shard]
        return (
            ArrayFile(self._folder / info.file("tokens"), self._dtype, info.tokens),
            ArrayFile(self._folder / info.file("documents"), RECORD, info.documents),
        )


OPEN_SHARDS = 100
"""Of which the two files stay open: systems allow 1,024 by default."""


class TokenCorpus(NamedTuple):
    """A prepared corpus."""

    folder: Path
    manifest: Manifest
    train: TokenShards
    evaluation: TokenShards

    @property
    def fingerprint(self) -> Fingerprint:
        """Digest that identifies the corpus."""
        return self.manifest.fingerprint

    def load_tokenizer(self) -> Tokenizer:
        """Load the tokenizer that it was prepared with. Raises DataError if it can't be."""
        plan = self.manifest.plan
        config = TokenizerConfig(kind=plan["tokenizer"]["kind"], **plan["frame"])
        # Python code that comes with a corpus isn't run, whatever its manifest says.
        update: dict[str, Any] = {"hf_trust_remote_code": False}
        if config.kind == "byte":
            update["byte_offset"] = plan["tokenizer"]["byte_offset"]
        config = config.model_copy(update=update)
        return load_tokenizer(config, self.folder / TOKENIZER)


def read_manifest(folder: Path) -> Manifest:
    """Read a corpus's manifest. Raises DataError, saying why it can't be."""
    path = folder / MANIFEST
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder; make it with chomp data prepare")
    if not path.exists() and (folder / PROGRESS).exists():
        raise DataError(f"{folder}: not finished yet; give the same chomp data prepare again")
    if not path.exists():
        raise DataError(f"{folder}: not a prepared corpus (it has no {MANIFEST})")
    return manifest_from_values(read_json(path), path)


def open_token_corpus(folder: Path) -> TokenCorpus:
    """Open a prepared corpus; nothing of its shards is read."""
    manifest = read_manifest(folder)
    dtype = token_type(manifest.plan["tokenizer"]["vocab_size"])
    return TokenCorpus(
        folder,
        manifest,
        TokenShards(folder, manifest.shards, dtype),
        TokenShards(folder, manifest.evaluation, dtype),
    )


def check_files(corpus: TokenCorpus) -> None:
    """Check that all files are there, in their sizes, and as written if that is quickly seen.

    Raises DataError that names what is wrong.
    """
    shards = corpus.manifest.all_shards
    total = sum(sum(shard.sizes.values()) for shard in shards)
    found = [
        line
        for shard in shards
        for line in damage(corpus.folder, shard, read=total <= FULL_DIGEST_BYTES)
    ]
    if found:
        raise DataError("\n".join(["the prepared corpus is damaged:", *found[:10], ADVICE]))


def check_settings(corpus: TokenCorpus, config: DataConfig, tokenizer: Tokenizer) -> None:
    """Check that a config's tokens are the corpus's. Raises DataError, a line for each difference.

    Args:
        corpus: the prepared corpus.
        config: the section `data`.
        tokenizer: the config's.
    """
    plan = corpus.manifest.plan
    now = frame(config.tokenizer)
    lines = [
        f"data.tokenizer.{key}: {corpus.folder} was prepared with {_shown(then)} "
        f"(got {_shown(now[key])})"
        for key, then in plan["frame"].items()
        if now[key] != then
    ]
    if not lines and plan["tokenizer"]["fingerprint"] != tokenizer.fingerprint:
        lines = [
            f"data.tokenizer: gives other tokens than those in {corpus.folder} (its fingerprint is "
            f"{tokenizer.fingerprint}, the corpus's {plan['tokenizer']['fingerprint']}); its copy "
            f"is in {corpus.folder / TOKENIZER}"
        ]
    if lines:
        raise DataError(
            "\n".join([*lines, "set it as it was, or prepare the corpus again in another folder"])
        )


def _shown(value: bool | int | None) -> str:
    return {True: "true", False: "false", None: "null"}.get(value, str(value))


def frame(config: TokenizerConfig) -> dict[str, bool | int | None]:
    """Return the settings that shape a document's tokens beside the tokenizer itself."""
    return config.model_dump(include={"add_bos", "add_eos", "max_doc_tokens"})


class TokenRows(NamedTuple):
    """The documents as rows of text, by number: for those who look at them."""

    corpus: TokenCorpus
    tokenizer: Tokenizer

    @property
    def name(self) -> str:
        """The corpus's folder."""
        return str(self.corpus.folder)

    @property
    def transient(self) -> tuple[type[BaseException], ...]:
        """None."""
        return ()

    def rows(self, start: int) -> Iterator[tuple[int, Row]]:
        """Yield the first words of the documents from number `start` on."""
        for number in range(start, len(self.corpus.train)):
            tokens = self.corpus.train.document(number).tokens[:FIRST_TOKENS]
            yield number, Row(self.tokenizer.decode(tokens.tolist()))


def as_corpus(corpus: TokenCorpus) -> Corpus:
    """Return it as a corpus of one shard, whose rows are its documents."""
    shards: list[Shard] = [TokenRows(corpus, corpus.load_tokenizer())]
    return Corpus(shards, corpus.fingerprint)


MOST_DOCUMENTS = 1 << ROW_BITS
"""A document's key is its row in that one shard."""
