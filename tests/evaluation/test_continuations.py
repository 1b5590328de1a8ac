"""Continuations score as one pass over them and the whole of their contexts."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from chomp.data import BatchSpec
from chomp.evaluation.continuations import BLOCK, ContinuationScorer

LogP = Callable[[Any], np.ndarray]
LENGTHS = [(1, 1), (3, 2), (5, 12), (40, 3), (BLOCK - 1, 2), (BLOCK, 5), (2 * BLOCK + 77, 100)]
"""Tokens of contexts and continuations."""


@pytest.fixture(scope="module")
def scorer(params: Any) -> ContinuationScorer:
    return ContinuationScorer(params, BatchSpec(1, 2, 64, 0, 2, True, True))


def pairs() -> list[tuple[list[int], list[int]]]:
    rng = np.random.default_rng(0)
    return [
        (rng.integers(3, 99, before).tolist(), rng.integers(3, 99, after).tolist())
        for before, after in LENGTHS
    ]


def test_each_scores_as_one_pass_over_all(log_p: LogP, scorer: ContinuationScorer):
    found = dict(scorer.score(pairs()))
    assert sorted(found) == list(range(len(LENGTHS)))
    for number, (context, continuation) in enumerate(pairs()):
        table = log_p(context + continuation)[len(context) - 1 : -1]
        expected = table[np.arange(len(continuation)), continuation].sum()
        assert found[number].log_p == pytest.approx(expected, rel=1e-5)
        assert found[number].greedy == bool((table.argmax(axis=1) == continuation).all())


@pytest.mark.parametrize("length", [4, 2 * BLOCK + 30])
def test_what_greedy_choice_gives_is_called_greedy(
    log_p: LogP, scorer: ContinuationScorer, length: int
):
    context = (np.arange(length) % 90 + 3).tolist()
    chosen: list[int] = []
    for _ in range(3):
        chosen.append(int(log_p(context + chosen)[-1].argmax()))
    others = [[chosen[0] ^ 1, *chosen[1:]], [*chosen[:-1], chosen[-1] ^ 1]]
    found = dict(scorer.score([(context, each) for each in [chosen, *others]]))
    assert [found[number].greedy for number in range(3)] == [True, False, False]


def test_an_empty_continuation_is_certain(scorer: ContinuationScorer):
    assert list(scorer.score([])) == []
    assert dict(scorer.score([([5], []), ([5, 6], [])])) == {0: (0.0, True), 1: (0.0, True)}
