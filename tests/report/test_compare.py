import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chomp.report.compare import (
    DocumentScore,
    evaluations_at_equal_tokens,
    losses_at_equal_tokens,
    same_documents,
)
from chomp.report.significance import paired_test


def test_a_run_and_itself(chomp: Any, evaluated_run: Path, copy_of: Any):
    copy = copy_of(evaluated_run)
    found = json.loads(chomp("compare", evaluated_run, copy, "--json").out)
    assert found["runs"] == ["run", "copy"] and found["differences"] == []
    assert all(line["first"] == line["second"] for line in found["losses"])
    assert any("--evaluate" in note for note in found["notes"])


def test_two_runs(chomp: Any, evaluated_run: Path, earlier_run: Path):
    done = chomp("compare", evaluated_run, earlier_run)
    assert done.code == 0 and "optim.name" in done.out and "'muon'" in done.out
    assert "training loss at equal tokens" in done.out and "eval_loss at equal tokens" in done.out
    assert "note: the runs logged fewer than 5 steps on the same batches" in done.out


def test_documents_are_scored_by_both_models(chomp: Any, evaluated_run: Path):
    """Step 4 against step 2 of one run, which is evaluated on too few documents for a test."""
    words = ("compare", f"{evaluated_run}:4", f"{evaluated_run}:2", "--evaluate", "--json")
    found = json.loads(chomp(*words).out)
    assert any("only 3 evaluation documents are the same" in note for note in found["notes"])
    assert found["documents"] is None


def test_losses_at_equal_tokens():
    tokens = np.arange(1.0, 101) * 100
    first = {"step": tokens / 100, "tokens_seen": tokens, "loss": 10 - tokens / 2000}
    half = slice(0, 50)
    second = {key: values[half] for key, values in first.items()}
    second["loss"] = second["loss"] + 0.5
    lines = losses_at_equal_tokens(first, second)
    assert [line.tokens for line in lines] == [500 * n for n in range(1, 11)]
    assert all(line.second == pytest.approx(line.first + 0.5) for line in lines)
    assert losses_at_equal_tokens(first, {"step": np.zeros(0)}) == []


def test_evaluations_between_others_are_interpolated():
    first = {"tokens_seen": np.array([100.0, 200, 900]), "eval_loss": np.array([5.0, 4, 3])}
    second = {"tokens_seen": np.array([100.0, 300, 400]), "eval_loss": np.array([6.0, 4, 3])}
    lines = evaluations_at_equal_tokens(first, second)
    assert [(line.tokens, line.second, line.interpolated) for line in lines] == [
        (100, 6, False),
        (200, 5, True),
    ]


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_a_difference_is_found_where_there_is_one(seed: int):
    numbers = np.random.default_rng(seed)
    base, weights = numbers.normal(3, 1, 60), numbers.integers(50, 500, 60).astype(float)
    noise = numbers.normal(0, 0.05, 60)
    test = paired_test(base, base + 0.1 + noise, weights)
    assert test is not None and test.is_sure and test.low < test.difference < test.high < 0
    mean = np.average(-0.1 - noise, weights=weights)
    assert test.difference == pytest.approx(mean)
    back = paired_test(base + 0.1 + noise, base, weights)
    assert back is not None and back.difference == pytest.approx(-test.difference)


def test_chance_alone_is_rarely_called_a_difference():
    numbers = np.random.default_rng(0)
    sure = 0
    for _ in range(60):
        one, two = numbers.normal(3, 0.3, (2, 30))
        test = paired_test(one, two, np.ones(30))
        sure += test is not None and test.is_sure
    assert sure <= 8  # 3 of 60 are to be expected


def test_the_same_model_and_too_few():
    scores = np.linspace(1, 2, 9)
    same = paired_test(scores, scores, np.ones(9))
    assert same is not None and (same.difference, same.p) == (0, 1)
    assert paired_test(scores[:4], scores[:4], np.ones(4)) is None


def test_only_documents_of_both_are_compared():
    one = {f"a:{n}": DocumentScore(2.0 + n / 100, 100 + n) for n in range(8)}
    two = {f"a:{n}": DocumentScore(1.9 + n / 90, 100 + n) for n in range(1, 10)}
    test, note = same_documents(one, two)
    assert test is not None and test.pairs == 7
    assert note == "3 documents of only one of the runs are left out"
