"""Documents read as streams score what the whole model, without a state to carry, scores."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from chomp.data import BatchSpec, Tokenizer, load_tokenizer
from chomp.data.packing import TokenizedDocument
from chomp.evaluation.positions import FIRST_RANGE, StreamScorer

Nats = Callable[[np.ndarray], np.ndarray]
LONG = 3 * FIRST_RANGE + 77


@pytest.fixture(scope="module")
def tokenizer(make_config: Any) -> Tokenizer:
    return load_tokenizer(make_config("megalodon").data.tokenizer)


def document(tokenizer: Tokenizer, length: int) -> TokenizedDocument:
    text = "".join(chr(97 + number * number % 23) for number in range(length)) + "é"
    (ids,) = tokenizer.encode_batch([text])
    return TokenizedDocument(ids, 0)


def layout(*, rows: int = 2, train_on_eos: bool = True) -> BatchSpec:
    return BatchSpec(1, rows, 64, 0, 2, mask_boundaries=True, train_on_eos=train_on_eos)


@pytest.fixture
def nats_of(log_p: Callable[[Any], np.ndarray]) -> Nats:
    """Compute the loss of each token but the first, from one pass over all of them."""
    return lambda tokens: -log_p(tokens)[np.arange(len(tokens) - 1), tokens[1:]]


def test_a_stream_scores_as_one_pass_over_it(params: Any, tokenizer: Tokenizer, nats_of: Nats):
    found = document(tokenizer, LONG)
    expected = nats_of(found.tokens)
    scores = StreamScorer(params, tokenizer, layout(), 4 * FIRST_RANGE).score([found])
    assert [(part.first, part.last) for part in scores] == [
        (1, FIRST_RANGE - 1),
        (FIRST_RANGE, 2 * FIRST_RANGE - 1),
        (2 * FIRST_RANGE, 4 * FIRST_RANGE - 1),
    ]
    for part in scores:
        there = expected[part.first - 1 : part.last]
        assert part.score.targets == len(there)
        assert part.score.nats == pytest.approx(there.sum(), rel=1e-5)
    assert sum(part.score.targets for part in scores) == len(found.tokens) - 1
    # The first token, a byte, is no target.
    assert sum(part.score.bytes for part in scores) + 1 == LONG + 2


def test_documents_beside_each_other_change_nothing(params: Any, tokenizer: Tokenizer):
    alike = [document(tokenizer, length) for length in (300, 5, 700, 90, 1)]
    scorer = StreamScorer(params, tokenizer, layout(), 2048)
    together = scorer.score(alike)
    alone = [part for each in alike for part in scorer.score([each])]
    for part in together:
        same = [one.score for one in alone if one.first == part.first]
        assert part.score.nats == pytest.approx(sum(score.nats for score in same), rel=1e-5)
        assert part.score.targets == sum(score.targets for score in same)
        assert part.score.bytes == sum(score.bytes for score in same)


@pytest.mark.parametrize("context", [2, 100, FIRST_RANGE, FIRST_RANGE + 1])
def test_a_longer_document_is_cut_and_each_token_scored_once(
    params: Any, tokenizer: Tokenizer, nats_of: Nats, context: int
):
    found = document(tokenizer, 333)
    scores = StreamScorer(params, tokenizer, layout(), context).score([found])
    assert sum(part.score.targets for part in scores) == len(found.tokens) - 1
    assert scores[-1].last == context - 1
    pieces = range(0, len(found.tokens) - 1, context - 1)
    expected = sum(nats_of(found.tokens[at : at + context]).sum() for at in pieces)
    assert sum(part.score.nats for part in scores) == pytest.approx(expected, rel=1e-5)


def test_end_tokens_count_only_where_they_are_trained_on(
    params: Any, tokenizer: Tokenizer, nats_of: Nats
):
    found = document(tokenizer, 20)
    assert found.tokens[-1] == 2
    (whole,) = StreamScorer(params, tokenizer, layout(), 64).score([found])
    (text,) = StreamScorer(params, tokenizer, layout(train_on_eos=False), 64).score([found])
    assert (whole.score.targets - text.score.targets, whole.score.bytes) == (1, text.score.bytes)
    assert text.score.nats == pytest.approx(nats_of(found.tokens)[:-1].sum(), rel=1e-5)


def test_documents_without_a_target_have_no_score(params: Any, tokenizer: Tokenizer):
    single = TokenizedDocument(np.array([5], np.int32), 0)
    assert StreamScorer(params, tokenizer, layout(), 64).score([single]) == []
