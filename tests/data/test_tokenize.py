import statistics
import time

import grain.python as grain
import numpy as np
import pytest

from chomp.config import TokenizerConfig
from chomp.data import load_tokenizer
from chomp.data.sources.documents import Document, DocumentStream
from chomp.data.sources.local import TextShard, standard_library
from chomp.data.tokenize import BLOCK_DOCUMENTS, EncodedBlocks, encode
from chomp.errors import DataError


class Mute:
    """A tokenizer that knows no token of some texts."""

    def encode_batch(self, texts):
        return [np.zeros(0 if "mute" in text else len(text), np.int32) for text in texts]


def blocks(texts, reading, tokenizer=None, **keys) -> grain.DatasetIterator:
    tokenizer = tokenizer or load_tokenizer(TokenizerConfig())
    stream = DocumentStream([TextShard(texts)], reading, seed=None, **keys)
    return EncodedBlocks(stream, tokenizer, None, short_before_error=True).__iter__()


def test_documents_keep_their_order_and_the_state_is_that_of_what_was_given_out(reading):
    texts = [f"document {i}" for i in range(1000)]
    iterator = blocks(texts, reading, repeat=False)
    states, found = [iterator.get_state()], []
    for block in iterator:
        states.append(iterator.get_state())
        found.append([document.key for document in block])
    assert [key for keys in found for key in keys] == list(range(1000))
    assert all(len(keys) == BLOCK_DOCUMENTS for keys in found[:-1])
    for place in (3, 0, 15):
        iterator.set_state(states[place])
        assert [[d.key for d in block] for block in iterator] == found[place:]


def test_truncation_and_documents_without_tokens(reading):
    documents = [Document("abcdef", 1, True, 2), Document("mute", 2, True, 1), Document("", -1)]
    long, mute, note = encode(documents, Mute(), 4)
    assert (len(long.tokens), long.truncated, long.repaired, long.skipped) == (4, True, True, 2)
    assert (len(mute.tokens), mute.truncated, mute.repaired, mute.skipped) == (0, False, False, 2)
    assert (len(note.tokens), note.skipped) == (0, 0)


def test_a_tokenizer_without_tokens_for_the_corpus_is_an_error_not_a_hang(reading):
    with pytest.raises(DataError, match="gives no token for 6400 documents in a row"):
        list(blocks(["mute"], reading, Mute(), repeat=True))


def test_an_interrupted_stream_does_not_go_on_as_if_nothing_had_been_lost(reading):
    class Interrupted(TextShard):
        def rows(self, start):
            for number, row in super().rows(start):
                if number == 10:
                    raise KeyboardInterrupt
                yield number, row

    stream = DocumentStream([Interrupted(["a"] * 500)], reading, repeat=False, seed=None)
    tokenizer = load_tokenizer(TokenizerConfig())
    iterator = EncodedBlocks(stream, tokenizer, None, short_before_error=True).__iter__()
    with pytest.raises(KeyboardInterrupt):
        next(iterator)
    with pytest.raises(RuntimeError, match="set its state"):
        next(iterator)


def test_a_start_encodes_no_more_than_it_needs(reading):
    stream = DocumentStream([TextShard(["text"] * 5000)], reading, repeat=False, seed=None)
    tokenizer = load_tokenizer(TokenizerConfig())
    iterator = EncodedBlocks(stream, tokenizer, None, short_before_error=True).__iter__()
    next(iterator)
    assert iterator._parent.get_state() == iterator.get_state()


@pytest.mark.slow
def test_the_pipeline_runs_at_the_tokenizer_s_own_speed(opened, bpe_config, reading):
    """At least 90% of what `encode_batch` alone reaches on the same documents, in turn."""
    tokenizer = load_tokenizer(bpe_config)
    documents = DocumentStream(standard_library().shards, reading, repeat=False, seed=None)
    texts = [document.text for document in documents]

    def alone() -> float:
        begin, tokens = time.perf_counter(), 0
        for at in range(0, len(texts), BLOCK_DOCUMENTS):
            found = tokenizer._backend.encode_batch(
                texts[at : at + BLOCK_DOCUMENTS], add_special_tokens=False
            )
            tokens += sum(len(encoding) for encoding in found)
        return tokens / (time.perf_counter() - begin)

    def pipeline() -> float:
        keys = {"backend": "builtin", "packing_mode": "bin", "repeat": False}
        data = opened((8, 4, 2048), tokenizer=tokenizer, **keys)
        begin = time.perf_counter()
        tokens = sum(drawn.stats.tokens for drawn in data.train)
        return tokens / (time.perf_counter() - begin)

    rates = [(alone(), pipeline()) for _ in range(3)]
    assert statistics.median(whole / own for own, whole in rates) >= 0.9, rates
