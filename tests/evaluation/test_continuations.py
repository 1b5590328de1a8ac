"""Continuations score as one pass over them and the whole of their contexts."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chomp.data import BatchSpec
from chomp.evaluation.continuations import BLOCK, ContinuationScorer
from chomp.models import build_model

LENGTHS = [(1, 1), (3, 2), (5, 12), (40, 3), (BLOCK - 1, 2), (BLOCK, 5), (2 * BLOCK + 77, 100)]
"""Tokens of contexts and continuations."""


@pytest.fixture(scope="module")
def params(make_config: Any) -> Any:
    return build_model(make_config("megalodon").model, isolate_documents=False).init(
        jax.random.PRNGKey(3)
    )


@pytest.fixture(scope="module")
def scorer(params: Any) -> ContinuationScorer:
    return ContinuationScorer(params, BatchSpec(1, 2, 64, 0, 2, True, True))


def pairs() -> list[tuple[list[int], list[int]]]:
    rng = np.random.default_rng(0)
    return [
        (rng.integers(3, 99, before).tolist(), rng.integers(3, 99, after).tolist())
        for before, after in LENGTHS
    ]


def log_p(params: Any, context: list[int], continuation: list[int]) -> np.ndarray:
    """The log-probabilities of all tokens at each place of a continuation."""
    logits, _ = params(jnp.asarray([context + continuation]))
    table = np.asarray(jax.nn.log_softmax(logits[0].astype(jnp.float32)))
    return table[len(context) - 1 : -1]


def test_each_scores_as_one_pass_over_all(params: Any, scorer: ContinuationScorer):
    found = dict(scorer.score(pairs()))
    assert sorted(found) == list(range(len(LENGTHS)))
    for number, (context, continuation) in enumerate(pairs()):
        table = log_p(params, context, continuation)
        expected = table[np.arange(len(continuation)), continuation].sum()
        assert found[number].log_p == pytest.approx(expected, rel=1e-5)
        assert found[number].greedy == bool((table.argmax(axis=1) == continuation).all())


@pytest.mark.parametrize("length", [4, 2 * BLOCK + 30])
def test_what_greedy_choice_gives_is_called_greedy(
    params: Any, scorer: ContinuationScorer, length: int
):
    context = (np.arange(length) % 90 + 3).tolist()
    chosen: list[int] = []
    for _ in range(3):
        chosen.append(int(log_p(params, context, [*chosen, 0])[-1].argmax()))
    others = [[chosen[0] ^ 1, *chosen[1:]], [*chosen[:-1], chosen[-1] ^ 1]]
    found = dict(scorer.score([(context, each) for each in [chosen, *others]]))
    assert [found[number].greedy for number in range(3)] == [True, False, False]


def test_an_empty_continuation_is_certain(scorer: ContinuationScorer):
    assert list(scorer.score([])) == []
    assert dict(scorer.score([([5], []), ([5, 6], [])])) == {0: (0.0, True), 1: (0.0, True)}
