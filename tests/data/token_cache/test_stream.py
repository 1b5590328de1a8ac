import itertools
import json
import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chomp.config import DataConfig, TokenizerConfig
from chomp.data import load_tokenizer
from chomp.data.token_cache.permutation import documents_at
from chomp.data.token_cache.prepare import prepare

BOTH = pytest.mark.parametrize("packing_mode", ["sequential", "bin"])


@pytest.fixture
def prepared(tmp_path):
    """Prepare a corpus in small shards; return the keys of a config that reads it."""

    def make(name="tokens", *, evaluate=False, shard_tokens=3000, tokenizer=None, **keys):
        keys = {"backend": "local_text", "tokenizer": tokenizer or TokenizerConfig()} | keys
        config = DataConfig(**keys)
        loaded = load_tokenizer(config.tokenizer)
        prepare(
            *(config, loaded, tmp_path / name),
            evaluate=evaluate,
            shard_tokens=shard_tokens,
            progress=lambda done: None,
        )
        return {"backend": "tokens", "tokens_dir": str(tmp_path / name)}

    return make


@given(st.integers(1, 5000), st.integers(0, 2**31), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_each_epoch_is_a_permutation(count, seed, epoch):
    positions = np.arange(epoch * count, (epoch + 1) * count, dtype=np.uint64)
    order = documents_at(positions, count, seed)
    assert sorted(order.tolist()) == list(range(count))
    at = len(positions) // 2
    assert documents_at(positions[at : at + 1], count, seed) == order[at]


def test_the_order_depends_on_seed_and_epoch_and_spreads_evenly():
    count, epochs = 12, 3000
    order = documents_at(np.arange(count * epochs, dtype=np.uint64), count, 5)
    table = np.zeros((count, count))
    np.add.at(table, (np.tile(np.arange(count), epochs), order.astype(int)), 1)
    expected = epochs / count
    # Chi square of (count - 1)^2 = 121 degrees of freedom: above 190 once in 50,000 times.
    assert ((table - expected) ** 2 / expected).sum() < 190
    # So do pairs of neighbours: 131 degrees of freedom.
    rows = order.reshape(epochs, count).astype(int)
    pairs = Counter(zip(rows[:, 3].tolist(), rows[:, 4].tolist(), strict=True))
    expected = epochs / (count * (count - 1))
    assert len(pairs) == count * (count - 1)
    assert sum((n - expected) ** 2 / expected for n in pairs.values()) < 205
    other = documents_at(np.arange(count * 10, dtype=np.uint64), count, 6)
    assert (other != order[: count * 10]).any()


def test_a_huge_corpus_needs_no_memory():
    count = 3 * 10**9
    order = documents_at(np.arange(10**9, 10**9 + 1000, dtype=np.uint64), count, 7)
    assert len(set(order.tolist())) == 1000 and order.max() < count
    assert abs(order.mean() / count - 0.5) < 0.05


def texts_of(write_lines, paragraphs):
    """Lines with empty and broken UTF-8 documents among them, and at the end."""
    texts = [*paragraphs[:150], "", "x", "", "", *paragraphs[150:300], ""]
    lines = [{"text": text} for text in texts]
    return write_lines("a.jsonl", *lines[:100]), write_lines(
        "b.jsonl", *lines[100:120], b'{"text": "broken \xff utf-8"}', *lines[120:]
    )


@BOTH
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("repeat", [False, True])
def test_unshuffled_tokens_give_the_batches_of_live_tokenising(
    opened, prepared, write_lines, paragraphs, bpe_file, packing_mode, own, repeat
):
    files = [str(path) for path in texts_of(write_lines, paragraphs)]
    tokenizer = TokenizerConfig(
        kind="hf", hf_name_or_path=str(bpe_file), add_bos=True, add_eos=True, max_doc_tokens=50
    )
    shared = {"tokenizer_config": tokenizer, "evaluate": True, "repeat": repeat}
    order = {"shuffle": False, "packing_mode": packing_mode, "packing_buffer_docs": 16}
    keys = {"files": files, "max_eval_samples": 20, **order}
    if own:
        keys["eval_files"] = [str(write_lines("own.jsonl", *({"text": t} for t in paragraphs)))]
    live = opened(backend="files", **keys, **shared)
    where = prepared(backend="files", tokenizer=tokenizer, evaluate=True, **keys)
    tokens = opened(**where, max_eval_samples=20, **order, **shared)
    count = 250 if repeat else 10**6
    expected = list(itertools.islice(live.train, count))
    got = list(itertools.islice(tokens.train, count))
    assert len(got) == len(expected) > 30
    assert sum(drawn.stats.repaired for drawn in got) and sum(d.stats.truncated for d in got)
    assert not repeat or expected[-1].stats.epoch > 1
    for ours, theirs in zip(got, expected, strict=True):
        assert ours.stats._replace(keys=()) == theirs.stats._replace(keys=())
        for x, y in zip(ours.batch, theirs.batch, strict=True):
            np.testing.assert_array_equal(x, y)
            assert x.dtype == y.dtype
    evaluations = [data.evaluation.sources[""] for data in (live, tokens)]
    for x, y in zip(*(e.batches() for e in evaluations), strict=True):
        np.testing.assert_array_equal(x.labels, y.labels)
    assert evaluations[0].targets == evaluations[1].targets
    assert evaluations[0].bytes == evaluations[1].bytes


@BOTH
@pytest.mark.parametrize("shuffle", [True, False])
def test_resuming_many_times_gives_the_batches_of_an_undisturbed_run(
    opened, assert_same, prepared, paragraphs, packing_mode, shuffle
):
    keys = {"shuffle": shuffle, "packing_mode": packing_mode, "packing_buffer_docs": 16}
    keys |= prepared(local_text=paragraphs)
    straight = opened(**keys)
    expected = list(itertools.islice(straight.train, 800))
    assert 2 < sum(d.stats.documents for d in expected) / 500 < 6
    rng = random.Random(packing_mode)
    got, state = [], None
    while len(got) < len(expected):
        data = opened(**keys)
        if state is not None:
            data.set_state(json.loads(state))
        count = min(rng.choice([0, 1, 2, 50, 130]), len(expected) - len(got))
        got += list(itertools.islice(data.train, count))
        state = json.dumps(data.get_state())
        assert len(state) < 180
        data.close()
    assert_same(got, expected)


@BOTH
def test_an_epoch_holds_every_document_once_in_an_order_of_its_own(
    opened, prepared, paragraphs, packing_mode
):
    where = prepared(local_text=paragraphs)
    data = opened(**where, packing_mode=packing_mode, repeat=False)
    drawn = list(data.train)
    tokens = np.concatenate([d.batch.input_ids[d.batch.attention_mask] for d in drawn])
    assert Counter(tokens.tolist()) == Counter("".join(paragraphs).encode())
    assert sum(d.stats.documents for d in drawn) == len(paragraphs)
    first = [key for d in drawn for key in d.stats.keys]
    assert sorted(set(first)) == list(range(len(paragraphs)))
    other = opened(**where, packing_mode=packing_mode, repeat=False, seed=1)
    assert [key for d in other.train for key in d.stats.keys] != first
    with pytest.raises(StopIteration):
        next(data.train)


def test_evaluation_documents_are_those_of_live_tokenising_and_never_trained_on(
    opened, prepared, paragraphs
):
    texts = [f"{i}: {text}" for i, text in enumerate(paragraphs)]
    keys = {"max_eval_samples": 60, "shuffle_buffer_size": 50}
    live = opened(local_text=texts, evaluate=True, **keys)
    where = prepared(local_text=texts, evaluate=True, **keys)
    data = opened(**where, evaluate=True, max_eval_samples=60)
    fewer = opened(**where, evaluate=True, max_eval_samples=10)
    assert data.evaluation.documents == 60 and fewer.evaluation.documents == 10
    assert (data.evaluation.targets, data.evaluation.sources[""].bytes) == (
        live.evaluation.targets,
        live.evaluation.sources[""].bytes,
    )
    held_out = {document.key for document in live.evaluation.sources[""]._encoded}
    sampled = {int(data.samples.next_document().split(":")[0]) for _ in range(440)}
    assert sampled == set(range(500)) - held_out
    data.samples.commit()
    state = json.loads(json.dumps(data.get_state()))
    expected = [data.samples.next_document() for _ in range(20)]
    again = opened(**where, evaluate=True, max_eval_samples=60)
    again.set_state(state)
    assert [again.samples.next_document() for _ in range(20)] == expected
    text = "".join(
        bytes(d.batch.input_ids[d.batch.attention_mask].astype(np.uint8)).decode(errors="replace")
        for d in opened(**where, repeat=False).train
    )
    assert not any(f"{texts[key]}" in text for key in held_out if len(texts[key]) > 40)
