import itertools
import json
import random
from collections import Counter

import numpy as np
import pytest

from chomp.config import TokenizerConfig
from chomp.data import load_tokenizer
from chomp.errors import DataError
from chomp.types import IGNORE_LABEL

BOTH = pytest.mark.parametrize("packing_mode", ["sequential", "bin"])


def take(data, count):
    return list(itertools.islice(data.train, count))


def tokens_of(drawn):
    return np.concatenate([d.batch.input_ids[d.batch.attention_mask] for d in drawn])


@BOTH
@pytest.mark.parametrize("shuffle", [True, False])
def test_resuming_many_times_gives_the_batches_of_an_undisturbed_run(
    opened, assert_same, paragraphs, packing_mode, shuffle
):
    """State to JSON to a new pipeline, at random places, windows turning over."""
    keys = {
        "local_text": paragraphs,
        "packing_mode": packing_mode,
        "packing_buffer_docs": 16,
        "shuffle": shuffle,
        "shuffle_buffer_size": 37,
        "max_eval_samples": 20,
    }
    straight = opened(evaluate=True, **keys)
    expected = take(straight, 600)
    # Several epochs.
    assert 2 < sum(d.stats.documents for d in expected) / 480 < 6
    rng = random.Random(packing_mode)
    got, state = [], None
    while len(got) < len(expected):
        data = opened(evaluate=True, **keys)
        if state is not None:
            data.set_state(json.loads(state))
            assert json.loads(json.dumps(data.get_state())) == json.loads(state)
        got += take(data, min(rng.choice([0, 1, 2, 50, 130]), len(expected) - len(got)))
        state = json.dumps(data.get_state())
        assert len(state) < 2048
        data.close()
    assert_same(got, expected)


@BOTH
def test_setting_a_state_in_place_rewinds(opened, assert_same, paragraphs, packing_mode):
    data = opened(local_text=paragraphs, packing_mode=packing_mode, shuffle_buffer_size=100)
    take(data, 7)
    state = data.get_state()
    expected = take(data, 30)
    for _ in range(2):
        data.set_state(state)
        assert data.get_state() == state
        assert_same(take(data, 30), expected)


@BOTH
@pytest.mark.parametrize("prefetch", [0, 3])
def test_one_epoch_holds_every_token_once(opened, paragraphs, packing_mode, prefetch):
    data = opened(
        local_text=paragraphs,
        packing_mode=packing_mode,
        repeat=False,
        shuffle_buffer_size=64,
        grain_prefetch=prefetch,
    )
    drawn = list(data.train)
    expected = Counter("".join(paragraphs).encode())
    assert Counter(tokens_of(drawn).tolist()) == expected
    assert sum(d.stats.documents for d in drawn) == len(paragraphs)
    assert {k for d in drawn for k in d.stats.keys} == set(range(len(paragraphs)))
    assert {d.batch.input_ids.shape for d in drawn} == {(2, 2, 64)}
    with pytest.raises(StopIteration):
        next(data.train)


@BOTH
@pytest.mark.parametrize("train_on_eos", [True, False])
@pytest.mark.parametrize("mask_boundary_loss", [True, False])
@pytest.mark.parametrize("isolate_documents", [True, False])
def test_targets_equal_a_recount(
    opened, paragraphs, packing_mode, train_on_eos, mask_boundary_loss, isolate_documents
):
    data = opened(
        local_text=paragraphs,
        packing_mode=packing_mode,
        train_on_eos=train_on_eos,
        mask_boundary_loss=mask_boundary_loss,
        isolate_documents=isolate_documents,
        tokenizer=load_tokenizer(TokenizerConfig(byte_offset=3, add_bos=True, add_eos=True)),
    )
    for batch, stats, _ in take(data, 20):
        targets = 0
        for labels, ids, segments, mask in zip(
            *(np.asarray(x).reshape(-1, 64) for x in (batch.labels, *batch[:1], *batch[2:])),
            strict=True,
        ):
            for i in range(64):
                first = i == 0 or segments[i] != segments[i - 1]
                expected = bool(mask[i])
                expected &= not (first and (mask_boundary_loss or isolate_documents))
                expected &= train_on_eos or ids[i] != 2
                assert labels[i] == (ids[i] if expected else IGNORE_LABEL)
                targets += expected and i > 0
        assert stats.targets == targets


def test_sequential_order_is_the_corpus_without_shuffle(opened, paragraphs):
    data = opened(local_text=paragraphs, shuffle=False, repeat=False)
    assert tokens_of(list(data.train)).astype(np.uint8).tobytes() == "".join(paragraphs).encode()


def test_shuffling_changes_with_epoch_and_seed(opened, paragraphs):
    def order(seed, epochs):
        data = opened(local_text=paragraphs, seed=seed, shuffle_buffer_size=1000)
        keys = []
        while len(keys) < 500 * epochs:
            keys += next(data.train).stats.keys
        return keys

    first = order(0, 2)
    assert first[:400] != order(1, 1)[:400]
    assert first[:400] == order(0, 1)[:400]
    assert first[520:900] != first[:380]


def test_long_documents_are_cut_only_when_asked(opened, paragraphs):
    texts = ["a" * 500, "b" * 20]
    whole = list(opened(local_text=texts, repeat=False).train)
    assert sum(d.stats.tokens for d in whole) == 520
    config = TokenizerConfig(max_doc_tokens=100)
    cut = list(opened(local_text=texts, repeat=False, tokenizer_config=config).train)
    assert sum(d.stats.tokens for d in cut) == 120
    assert sum(d.stats.truncated for d in cut) == 1


@BOTH
def test_held_out_documents_are_never_trained_on_nor_sampled(opened, paragraphs, packing_mode):
    texts = [f"{i}: {text}" for i, text in enumerate(paragraphs)]
    data = opened(
        local_text=texts,
        packing_mode=packing_mode,
        max_eval_samples=60,
        shuffle_buffer_size=50,
        evaluate=True,
    )
    held_out = {document.key for document in data.evaluation.sources[""]._encoded}
    assert len(held_out) == data.evaluation.documents == 60
    trained = Counter(key for d in take(data, 800) for key in d.stats.keys)
    assert held_out.isdisjoint(trained)
    assert set(trained) | held_out == set(range(500))
    sampled = {int(data.samples.next_document().split(":")[0]) for _ in range(900)}
    assert held_out.isdisjoint(sampled)
    assert len(sampled) == 440


def test_nothing_is_held_out_without_evaluation(opened, paragraphs):
    data = opened(local_text=paragraphs[:5], max_eval_samples=1000, repeat=False)
    assert sum(d.stats.documents for d in data.train) == 5


@pytest.mark.parametrize("asked", [5, 6, 1000])
def test_more_than_there_are_can_not_be_held_out(opened, paragraphs, asked):
    data = opened(local_text=paragraphs[:5], max_eval_samples=asked, evaluate=True)
    assert data.evaluation.documents == 1
    assert data.notes == [
        f"data.max_eval_samples: {asked} documents can't be held out, as the corpus has only 5; "
        "evaluating on 1 of them instead"
    ]
    data = opened(local_text=paragraphs[:6], max_eval_samples=5, evaluate=True)
    assert (data.evaluation.documents, data.notes) == (5, [])


def test_samples_go_on_from_the_state(opened, paragraphs):
    data = opened(local_text=paragraphs, shuffle_buffer_size=30)
    assert json.loads(json.dumps(data.get_state()))["samples"] is None
    for _ in range(7):
        data.samples.next_document()
    data.samples.commit()
    state = json.loads(json.dumps(data.get_state()))
    expected = [data.samples.next_document() for _ in range(600)]
    again = opened(local_text=paragraphs, shuffle_buffer_size=30)
    again.set_state(state)
    assert [again.samples.next_document() for _ in range(600)] == expected
    assert set(expected) == set(paragraphs)
    first = list(itertools.islice(take(opened(local_text=paragraphs), 1)[0].stats.keys, 1))
    assert paragraphs[first[0]] != expected[0]


def test_a_sample_that_never_came_has_used_no_document(opened, paragraphs):
    data = opened(local_text=paragraphs, shuffle_buffer_size=30)
    used = data.samples.next_document()
    data.samples.commit()
    drawn = data.samples.next_document()
    again = opened(local_text=paragraphs, shuffle_buffer_size=30)
    again.set_state(json.loads(json.dumps(data.get_state())))
    assert used != again.samples.next_document() == drawn


def test_skipped_documents_are_counted_once_an_epoch(opened, paragraphs):
    texts = [text for pair in zip(paragraphs, itertools.repeat("")) for text in pair]
    for keys in ({}, {"packing_mode": "bin"}, {"shuffle": False}):
        data = opened(local_text=texts, repeat=False, max_eval_samples=50, evaluate=True, **keys)
        drawn = list(data.train)
        assert sum(d.stats.skipped for d in drawn) == 500
        assert sum(d.stats.documents for d in drawn) == 450


def test_a_corpus_without_text_is_an_error(opened):
    for evaluate in (True, False):
        with pytest.raises(DataError, match="no text"):
            take(opened(local_text=["", "", ""], evaluate=evaluate), 1)
    with pytest.raises(DataError, match=r"data\.local_text: no text given"):
        opened()


def test_an_error_comes_after_the_batches_before_it_and_leaves_the_state(
    opened, assert_same, write_lines
):
    good = [{"text": f"document number {i} " * 9} for i in range(300)]
    keys = {"backend": "files", "shuffle": False, "repeat": False}
    path = write_lines("a.jsonl", *good, b"{broken", {"text": "the last"})
    drawn = []
    data = opened(files=[str(path)], **keys)
    with pytest.raises(DataError, match=r"a\.jsonl, line 301: broken JSON"):
        for element in data.train:
            drawn.append(element)
    assert sum(d.stats.tokens for d in drawn) > 0.6 * 300 * 9 * 17
    state = json.loads(json.dumps(data.get_state()))
    write_lines("a.jsonl", *good, {"text": "mended"}, {"text": "the last"})
    again = opened(files=[str(path)], **keys)
    again.set_state(state)
    drawn += list(again.train)
    assert_same(drawn, list(opened(files=[str(path)], **keys).train))


@pytest.mark.parametrize("kind", ["byte", "hf"])
def test_bins_are_97_percent_full_on_the_standard_library(opened, bpe_config, kind):
    """A whole epoch, the last round included; rows that only fill up the last batch aside."""
    data = opened(
        (1, 4, 2048),
        tokenizer=load_tokenizer(bpe_config if kind == "hf" else TokenizerConfig()),
        backend="builtin",
        packing_mode="bin",
        packing_buffer_docs=128,
        repeat=False,
    )
    drawn = list(data.train)
    rows = sum(int(d.batch.attention_mask.any(-1).sum()) for d in drawn)
    assert sum(d.stats.tokens for d in drawn) / (rows * 2048) >= 0.97


def test_closing_stops_the_threads_and_refuses_further_use(opened, paragraphs):
    data = opened(local_text=paragraphs)
    next(data.train)
    data.close()
    data.close()
    with pytest.raises(ValueError, match="closed"):
        next(data.train)
