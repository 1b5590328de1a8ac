"""Prepared corpora: made, verified, shown."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from chomp.config import Config
from chomp.data.token_cache.corpus import TokenShards, open_token_corpus, read_manifest
from chomp.data.token_cache.files import ShardInfo, content_damage
from chomp.data.token_cache.prepare import Prepared, prepare
from chomp.errors import ConfigError, DataError
from chomp.system.console import Console
from chomp.system.terminal import one_line
from chomp.trainer.components import open_tokenizer
from chomp.types import ROW_BITS

SECONDS_BETWEEN_LINES = 5.0


class ProgressLines:
    """Says now and then how far a preparation is.

    Args:
        console: shows the lines.
        seconds: least time between lines.
    """

    def __init__(self, console: Console, seconds: float = SECONDS_BETWEEN_LINES):
        self._console, self._seconds = console, seconds
        self._first: tuple[float, Prepared] | None = None
        self._last = time.monotonic()

    def __call__(self, now: Prepared) -> None:
        """Take how far it is."""
        at = time.monotonic()
        start, first = self._first = self._first or (at, now)
        if at - self._last < self._seconds or at == start:
            return
        self._last = at
        spent, gained = at - start, now.share - first.share
        left = f", about {_clock(spent * (1 - now.share) / gained)} left" if gained > 0 else ""
        speed = (now.tokens - first.tokens) / spent
        self._console.message(
            f"{now.share:4.0%}  {now.documents:,} documents, {now.tokens:,} tokens, "
            f"{speed / 1e6:.2f}M tokens/s{left}"
        )


def _clock(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}"


def prepare_corpus(config: Config, out: Path, console: Console, shard_tokens: int) -> None:
    """Prepare a config's corpus, or finish what was begun; `console` shows progress and result.

    Raises:
        ConfigError: the config's corpus is a prepared one already.
        DataError: the texts can't be read, or the folder holds something else.
        DiskError: the folder can't be written to.
    """
    if config.data.backend == "tokens":
        raise ConfigError(
            ["data.backend: tokens are prepared already; name the texts that they come from"]
        )
    if config.data.sources:
        raise ConfigError(
            [
                "data.sources: each is prepared by itself: give a config with one of them, then "
                "name the folder in its place, with tokens_dir"
            ]
        )
    _, tokenizer = open_tokenizer(config, None)
    prepare(
        *(config.data, tokenizer, out),
        evaluate=config.train.eval_every > 0,
        shard_tokens=shard_tokens,
        progress=ProgressLines(console),
    )
    for line in corpus_lines(out):
        console.message(line)
    console.message(f"train from it with: -o data.backend=tokens -o data.tokens_dir={out}")


def corpus_lines(folder: Path) -> list[str]:
    """Say what a prepared corpus is. Raises DataError if there is none."""
    manifest = read_manifest(folder)
    plan = manifest.plan
    train, evaluation = _counts(manifest.shards), _counts(manifest.evaluation)
    lines = [
        f"{folder}: {train} in {len(manifest.shards)} shard(s)",
        f"  evaluation  {evaluation if plan['evaluation'] else 'none kept apart'}",
        f"  source      {_values({k: v for k, v in plan['source'].items() if ' ' not in k})}",
        f"  tokenizer   {_values(plan['tokenizer'] | plan['frame'])}",
        f"  size        {sum(sum(s.sizes.values()) for s in manifest.all_shards):,} bytes",
        f"  digest      {manifest.fingerprint['digest']}",
    ]
    skipped = manifest.skipped_at_end + sum(shard.skipped for shard in manifest.shards)
    for word, count in (
        ("left out", skipped),
        ("truncated", sum(shard.truncated for shard in manifest.shards)),
        ("repaired", sum(shard.repaired for shard in manifest.shards)),
    ):
        if count:
            lines.append(f"  {word:<10}  {count:,} document(s)")
    return [one_line(line) for line in lines]


def _counts(shards: list[ShardInfo]) -> str:
    documents, tokens, size = (
        sum(getattr(shard, key) for shard in shards) for key in ("documents", "tokens", "bytes")
    )
    return f"{documents:,} documents, {tokens:,} tokens, {size:,} bytes of text"


def _values(values: dict[str, Any]) -> str:
    return ", ".join(
        f"{key} {value}" for key, value in values.items() if value not in (None, False)
    )


def document_values(folder: Path, number: int, *, evaluation: bool) -> dict[str, Any]:
    """Return a document's text, counts and where it comes from.

    Raises:
        DataError: there is no such corpus or document.
    """
    corpus = open_token_corpus(folder)
    shards = corpus.evaluation if evaluation else corpus.train
    if not 0 <= number < len(shards):
        raise DataError(
            f"--document {number}: {folder} has no such document; they are numbered from 0 to "
            f"{len(shards) - 1}"
        )
    manifest = corpus.manifest
    names = manifest.evaluation_sources if evaluation else []
    return _document(shards, number, names or manifest.sources) | {
        "text": corpus.load_tokenizer().decode(shards.document(number).tokens.tolist())
    }


def _document(shards: TokenShards, number: int, names: list[str]) -> dict[str, Any]:
    document = shards.document(number)
    source, row = divmod(shards.source(number), 1 << ROW_BITS)
    return {
        "document": number,
        "source": names[source] if source >= 0 else None,
        "row": row if source >= 0 else None,
        "tokens": len(document.tokens),
        "bytes": document.bytes,
        "truncated": document.truncated,
        "repaired": document.repaired,
        "skipped_before": document.skipped,
    }


def document_lines(values: dict[str, Any]) -> list[str]:
    """Return what a person reads of a document: a line about it, then its text."""
    notes = "".join(f", {key}" for key in ("truncated", "repaired") if values[key])
    return [
        f"document {values['document']}: {one_line(str(values['source']))}, row {values['row']}: "
        f"{values['tokens']:,} tokens, {values['bytes']:,} bytes{notes}",
        values["text"],
    ]


def as_json(values: dict[str, Any]) -> str:
    """Return values as one line of JSON."""
    return json.dumps(values)


def findings(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Read all of a prepared corpus; yield each shard's name, and what is wrong with it.

    Raises:
        DataError: there is no corpus, or its manifest is damaged.
    """
    corpus = open_token_corpus(folder)
    vocab_size = corpus.manifest.plan["tokenizer"]["vocab_size"]
    for shard in corpus.manifest.all_shards:
        yield shard.name, content_damage(folder, shard, vocab_size)
    try:
        found = corpus.load_tokenizer().fingerprint
        wrong = found != corpus.manifest.plan["tokenizer"]["fingerprint"]
        yield "tokenizer", ["gives other tokens than it did"] if wrong else []
    except DataError as error:
        yield "tokenizer", [str(error)]
