import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chomp.config import TokenizerConfig
from chomp.data import load_tokenizer
from chomp.data.batching import BatchSpec
from chomp.data.evaluation import EvaluationSet
from chomp.data.sources.documents import Document
from chomp.data.tokenize import encode
from chomp.errors import DataError
from chomp.types import IGNORE_LABEL

PACKING = pytest.mark.parametrize("best_fit", [False, True])


def evaluation_of(texts, shape, best_fit, *, train_on_eos=True, config=None, most=None):
    config = config or TokenizerConfig()
    tokenizer = load_tokenizer(config)
    documents = [Document(text, i) for i, text in enumerate(texts)]
    return EvaluationSet(
        lambda: encode(documents, tokenizer, config.max_doc_tokens),
        tokenizer,
        BatchSpec(1, *shape, 0, 2, False, train_on_eos),
        best_fit=best_fit,
        max_pieces=most,
    )


def scored(evaluation) -> list[tuple[int, int]]:
    """(context, target) of every label in the loss."""
    pairs = []
    for batch in evaluation.batches():
        for ids, labels, segments, mask in zip(*(np.asarray(x)[0] for x in batch), strict=True):
            for i in range(1, len(ids)):
                if labels[i] != IGNORE_LABEL:
                    assert mask[i] and segments[i] == segments[i - 1] and labels[i] == ids[i]
                    pairs.append((int(ids[i - 1]), int(ids[i])))
    return pairs


@PACKING
@pytest.mark.parametrize("count", [1, 3, 50, 200])
@pytest.mark.parametrize("shape", [(3, 64), (8, 512), (7, 37), (1, 2)])
def test_every_target_is_scored_exactly_once(paragraphs, count, shape, best_fit):
    texts = paragraphs[:count]
    evaluation = evaluation_of(texts, shape, best_fit)
    raw = [text.encode() for text in texts]
    expected = sum(len(data) - 1 for data in raw)
    assert evaluation.targets == expected
    assert evaluation.documents == count
    pairs = [pair for data in raw for pair in itertools.pairwise(data)]
    assert sorted(scored(evaluation)) == sorted(pairs)
    assert {batch.input_ids.shape for batch in evaluation.batches()} == {(1, *shape)}


@given(st.lists(st.integers(1, 80), min_size=1, max_size=20), st.integers(2, 30), st.booleans())
@settings(max_examples=100, deadline=None)
def test_targets_do_not_depend_on_lengths_rows_or_packing(sizes, time, best_fit):
    texts = ["x" * size for size in sizes] + ["ab"]
    evaluation = evaluation_of(texts, (2, time), best_fit)
    assert evaluation.targets == sum(sizes) - len(sizes) + 1
    assert evaluation.bytes == evaluation.targets


@PACKING
def test_sequential_rows_are_full_and_bins_hold_whole_documents(paragraphs, best_fit):
    evaluation = evaluation_of(paragraphs[:80], (4, 512), best_fit)
    rows = [row for batch in evaluation.batches() for row in np.asarray(batch.attention_mask)[0]]
    used = [int(row.sum()) for row in rows if row.any()]
    if best_fit:
        segments = sum(int(np.asarray(b.segment_ids).max(-1).sum()) for b in evaluation.batches())
        assert segments == sum(len(text.encode()) > 1 for text in paragraphs[:80])
    else:
        assert all(n >= 511 for n in used[:-1])


def test_control_tokens(bpe_config, paragraphs):
    config = bpe_config.model_copy(update={"add_bos": True, "add_eos": True})
    evaluation = evaluation_of(paragraphs[:50], (4, 128), True, config=config)
    ids = load_tokenizer(bpe_config).encode_batch(paragraphs[:50])
    assert evaluation.targets == sum(len(i) + 1 for i in ids)
    assert evaluation.bytes == sum(len(text.encode()) for text in paragraphs[:50])
    no_eos = evaluation_of(paragraphs[:50], (4, 128), True, config=config, train_on_eos=False)
    assert no_eos.targets == sum(len(i) for i in ids)


def test_documents_are_cut_as_in_training(paragraphs):
    config = TokenizerConfig(max_doc_tokens=10)
    evaluation = evaluation_of(["x" * 50, "y" * 5], (4, 8), True, config=config)
    assert (evaluation.targets, evaluation.bytes) == (9 + 4, 9 + 4)


def test_nothing_to_predict_is_an_error():
    with pytest.raises(DataError, match="2 documents hold no token to predict"):
        _ = evaluation_of(["a", "b"], (2, 8), True).targets


def test_nothing_is_read_before_it_is_needed():
    def load():
        raise AssertionError("read")

    EvaluationSet(
        load,
        load_tokenizer(TokenizerConfig()),
        BatchSpec(1, 2, 8, 0, 2, True, True),
        best_fit=True,
        max_pieces=None,
    )


def test_evaluation_files_leave_training_whole(opened, write_lines, paragraphs):
    train = write_lines("train.jsonl", *({"text": t} for t in paragraphs[:40]))
    own = write_lines("eval.jsonl", *({"text": t} for t in ["", *paragraphs[40:60]]))
    data = opened(
        backend="files",
        files=[str(train)],
        eval_files=[str(own)],
        max_eval_samples=7,
        evaluate=True,
        repeat=False,
    )
    assert data.evaluation.targets == sum(len(t.encode()) - 1 for t in paragraphs[40:47])
    assert sum(d.stats.documents for d in data.train) == 40
    assert "evaluation digest" in data.fingerprint


def test_an_empty_evaluation_file_is_an_error(opened, write_lines):
    train = write_lines("train.jsonl", {"text": "some text"})
    own = write_lines("eval.jsonl", {"text": ""})
    with pytest.raises(DataError, match="the evaluation documents' corpus holds no text"):
        opened(backend="files", files=[str(train)], eval_files=[str(own)], evaluate=True)
