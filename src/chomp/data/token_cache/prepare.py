"""Preparing: a config's texts are encoded once and written as shards of tokens.

What is finished of it is in `progress.json`, written after each shard: its content says where in
the texts the next shard begins, so that a preparation killed anywhere goes on there, and ends with
the same bytes.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import grain.python as grain
import numpy as np

from chomp.config.data import DataConfig
from chomp.data.all_sources import evaluation_files
from chomp.data.corpus import SEEDS, TextSplits, find_texts
from chomp.data.holdout import HoldOut
from chomp.data.packing import Block, TokenizedDocument
from chomp.data.sources.documents import DocumentStream, Shard
from chomp.data.sources.read_policy import read_policy
from chomp.data.token_cache.corpus import MOST_DOCUMENTS, TokenShards, frame, read_manifest
from chomp.data.token_cache.files import (
    MANIFEST,
    PROGRESS,
    TOKENIZER,
    Manifest,
    disk_errors,
    records_of,
    token_type,
    write_json,
    write_shard,
)
from chomp.data.token_cache.unfinished import (
    WINDOW_BYTES,
    UnfinishedCache,
    check_same,
    locked,
    read_unfinished,
)
from chomp.data.tokenize import EncodedBlocks, encode
from chomp.data.tokenizers.base import Tokenizer
from chomp.errors import DataError


class Prepared(NamedTuple):
    """Progress of a preparation."""

    documents: int
    tokens: int
    share: float
    """About which part of the texts is done, 0 to 1."""


def prepare(
    config: DataConfig,
    tokenizer: Tokenizer,
    out: Path,
    *,
    evaluate: bool,
    shard_tokens: int,
    progress: Callable[[Prepared], None],
) -> Manifest:
    """Write a config's corpus as tokens, or finish one that was interrupted.

    Args:
        config: the section `data`.
        tokenizer: the config's.
        out: folder to write to: new, empty, or with the same corpus, finished or not.
        evaluate: whether an evaluation set is kept apart.
        shard_tokens: tokens after which a shard ends.
        progress: takes the progress, after each block of documents.

    Raises:
        DataError: the texts can't be read, or the folder holds something else.
        DiskError: the folder can't be written to.
    """
    closing = threading.Event()
    texts = find_texts(
        config,
        read_policy(config, closing),
        only_evaluated=evaluation_files(config),
        evaluate=evaluate,
    )
    plan = _plan(config, tokenizer, texts, evaluate=evaluate, shard_tokens=shard_tokens)
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    with locked(out):
        if (out / MANIFEST).exists():
            manifest = read_manifest(out)
            check_same(out, manifest.plan, plan)
            (out / PROGRESS).unlink(missing_ok=True)
            return manifest
        writer = _Writer(out, texts, tokenizer, read_unfinished(out, plan, texts))
        try:
            return writer.write(
                config.tokenizer.max_doc_tokens, evaluate=evaluate, progress=progress
            )
        finally:
            closing.set()


def _plan(
    config: DataConfig,
    tokenizer: Tokenizer,
    texts: TextSplits,
    *,
    evaluate: bool,
    shard_tokens: int,
) -> dict[str, Any]:
    kept: dict[str, Any] | None = {"max_eval_samples": config.max_eval_samples}
    if not evaluate:
        kept = None
    elif texts.own is None:
        kept |= {"shuffle": config.shuffle}
        if config.shuffle:
            kept |= {
                "seed": config.held_out_seed % SEEDS,
                "shuffle_buffer_size": config.shuffle_buffer_size,
                WINDOW_BYTES: config.shuffle_buffer_bytes,
            }
    return {
        "source": {"backend": config.backend, **texts.fingerprint},
        "text_key": config.text_key,
        "tokenizer": {
            "kind": config.tokenizer.kind,
            "byte_offset": config.tokenizer.byte_offset,
            "vocab_size": tokenizer.vocab_size,
            "fingerprint": tokenizer.fingerprint,
        },
        "frame": frame(config.tokenizer),
        "evaluation": kept,
        "shard_tokens": shard_tokens,
    }


class _Writer:
    """Writes what is missing of a corpus."""

    def __init__(
        self, out: Path, texts: TextSplits, tokenizer: Tokenizer, unfinished: UnfinishedCache
    ):
        self._out, self._texts = out, texts
        self._tokenizer, self._unfinished = tokenizer, unfinished
        self._dtype = token_type(tokenizer.vocab_size)

    def write(
        self, max_tokens: int | None, *, evaluate: bool, progress: Callable[[Prepared], None]
    ) -> Manifest:
        with disk_errors(self._out):
            self._tokenizer.save(self._out / TOKENIZER)
        held_out = self._held_out(evaluate=evaluate)
        if not self._unfinished.evaluated:
            self._write_evaluation(max_tokens, evaluate=evaluate)
        split = self._texts.split
        documents = DocumentStream(split.corpus.shards, split.reading, repeat=False, seed=None)
        blocks = EncodedBlocks(
            HoldOut(documents, held_out), self._tokenizer, max_tokens, short_before_error=False
        ).__iter__()
        try:
            if self._unfinished.state is not None:
                blocks.set_state(self._unfinished.state)
            for now in self._write_shards(blocks):
                progress(now)
        finally:
            blocks.close()
        manifest = self._unfinished.manifest
        if held_out and manifest.shards:
            first = TokenShards(self._out, manifest.shards, self._dtype).source(0)
            manifest = manifest._replace(end_alone=min(held_out) < first)
        if not any(shard.tokens for shard in manifest.shards):
            raise DataError("the corpus gives no token; data.tokenizer doesn't suit it")
        write_json(self._out / MANIFEST, manifest.as_values())
        (self._out / PROGRESS).unlink()
        return manifest

    def _held_out(self, *, evaluate: bool) -> frozenset[int]:
        if evaluate and self._texts.own is None and self._unfinished.evaluated:
            written = self._unfinished.manifest.evaluation  # no need to read the texts again
            return TokenShards(self._out, written, self._dtype).sources()
        return self._texts.held_out(evaluate=evaluate)

    def _write_evaluation(self, max_tokens: int | None, *, evaluate: bool) -> None:
        texts = self._texts.evaluation.documents() if evaluate else []
        shards = []
        if documents := encode(texts, self._tokenizer, max_tokens):
            tokens = np.concatenate([document.tokens for document in documents])
            records = records_of(documents)
            shards = [write_shard(self._out, "evaluation", records, tokens.astype(self._dtype))]
        self._keep(evaluated=True, manifest=self._unfinished.manifest._replace(evaluation=shards))

    def _write_shards(self, blocks: grain.DatasetIterator[Block]) -> Iterator[Prepared]:
        shards, end = self._unfinished.manifest.shards, len(self._texts.corpus.shards)
        share = _Share(self._texts.corpus.shards, self._unfinished.state)
        documents = sum(shard.documents for shard in shards)
        tokens = sum(shard.tokens for shard in shards)
        parts = _Parts([], [])
        for block in blocks:
            state = blocks.get_state()
            if block[-1].key < 0 and state["shard"] == end:  # comes after the last document
                manifest = self._unfinished.manifest._replace(skipped_at_end=block.pop().skipped)
                self._unfinished = self._unfinished._replace(manifest=manifest)
            parts.add(block, self._dtype)
            documents += len(block)
            tokens += sum(len(document.tokens) for document in block)
            if documents > MOST_DOCUMENTS:
                raise DataError(f"more than {MOST_DOCUMENTS:,} documents; prepare parts of it")
            if parts.size >= self._unfinished.manifest.plan["shard_tokens"]:
                self._write_shard(parts, state)
                parts = _Parts([], [])
            yield Prepared(documents, tokens, share.of(state, block))
        if any(map(len, parts.records)):
            self._write_shard(parts, blocks.get_state())

    def _write_shard(self, parts: "_Parts", state: dict[str, Any]) -> None:
        manifest = self._unfinished.manifest
        name = f"train-{len(manifest.shards):05d}"
        shard = write_shard(
            self._out, name, np.concatenate(parts.records), np.concatenate(parts.tokens)
        )
        self._keep(state=state, manifest=manifest._replace(shards=[*manifest.shards, shard]))

    def _keep(self, **finished: Any) -> None:
        self._unfinished = self._unfinished._replace(**finished)
        self._unfinished.save(self._out)


class _Parts(NamedTuple):
    """Blocks that wait to be written as a shard."""

    records: list[np.ndarray]
    tokens: list[np.ndarray]

    @property
    def size(self) -> int:
        return sum(map(len, self.tokens))

    def add(self, block: Block, dtype: np.dtype) -> None:
        self.records.append(records_of(block))
        if block:
            self.tokens.append(np.concatenate([d.tokens for d in block]).astype(dtype))


class _Share:
    """Tells about which part of the texts is done, by the sizes of files where these are known."""

    def __init__(self, shards: Sequence[Shard], start: dict[str, Any] | None):
        files = [getattr(shard, "file", None) for shard in shards]
        self._sizes = [max(1, file.size) if file else 1 for file in files]
        self._total = sum(self._sizes)
        self._shard = start["shard"] if start else 0
        self._before, self._within = sum(self._sizes[: self._shard]), 0

    def of(self, state: dict[str, Any], block: Sequence[TokenizedDocument]) -> float:
        """Return the part done at the state after a block."""
        while self._shard < state["shard"]:
            self._before += self._sizes[self._shard]
            self._shard, self._within = self._shard + 1, 0
        if self._shard == len(self._sizes):
            return 1.0
        self._within += sum(document.bytes for document in block)
        return (self._before + min(self._within, self._sizes[self._shard])) / self._total
