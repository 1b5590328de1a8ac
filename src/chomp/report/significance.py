"""Whether a difference between two models is more than chance."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

LEAST_PAIRS = 5
RESAMPLES = 9999
SURE = 0.05


class PairedTest(NamedTuple):
    """The mean difference, first minus second, of things that both models were scored on."""

    pairs: int
    difference: float
    low: float
    """Beginning of the 95% interval, from resampled pairs."""
    high: float
    p: float
    """Of a difference at least so large if each pair's sign were a matter of chance."""

    @property
    def is_sure(self) -> bool:
        """Whether chance is an unlikely cause."""
        return self.p < SURE


def paired_test(
    first: Float[np.ndarray, "pair"],
    second: Float[np.ndarray, "pair"],
    weights: Float[np.ndarray, "pair"],
) -> PairedTest | None:
    """Compare two models on the same things; None where these are too few.

    A permutation test of the pairs' signs and a bootstrap of the pairs: neither supposes how the
    differences are distributed, both that the pairs are independent.

    Args:
        first: scores of one model.
        second: those of the other.
        weights: of each pair in the mean.
    """
    if len(first) < LEAST_PAIRS:
        return None
    from scipy.stats import bootstrap, permutation_test

    parts = (first - second) * weights / weights.mean()
    if not parts.any():
        return PairedTest(len(parts), 0.0, 0.0, 0.0, 1.0)
    how = {"n_resamples": RESAMPLES, "vectorized": True, "batch": 1000, "rng": 0}
    test = permutation_test((parts,), np.mean, permutation_type="samples", **how)
    interval = bootstrap(
        (first - second, weights), _weighted_mean, paired=True, method="percentile", **how
    ).confidence_interval
    return PairedTest(
        len(parts),
        float(parts.mean()),
        float(interval.low),
        float(interval.high),
        float(test.pvalue),
    )


def _weighted_mean(values: np.ndarray, weights: np.ndarray, axis: int = -1) -> np.ndarray:
    return (values * weights).sum(axis=axis) / weights.sum(axis=axis)


class PairedDifference(NamedTuple):
    """The mean difference, first minus second, of runs that differ in their seeds alone."""

    pairs: int
    difference: float
    low: float | None
    """Beginning of the 95% interval, by Student's t; None with one pair."""
    high: float | None
    p: float | None
    """Of a difference at least so large if there were none; two-sided."""


def paired_difference(
    first: Float[np.ndarray, "pair"], second: Float[np.ndarray, "pair"]
) -> PairedDifference:
    """Compare pairs by a t-test, which supposes that differences are normally distributed.

    Unlike a permutation of signs it can tell something from few pairs: with five the least p of
    those is 0.06.

    Args:
        first: scores of one arm, at least one.
        second: those of the other, with the same seeds.
    """
    differences = first - second
    count, mean = len(differences), float(differences.mean())
    if count < 2:
        return PairedDifference(count, mean, None, None, None)
    if not np.ptp(differences):  # no spread: Student's t is 0/0, or infinite
        return PairedDifference(count, mean, mean, mean, float(mean == 0))
    from scipy.stats import ttest_rel

    test: Any = ttest_rel(first, second)
    interval = test.confidence_interval(0.95)
    return PairedDifference(
        count, mean, float(interval.low), float(interval.high), float(test.pvalue)
    )


def holm(values: Sequence[float]) -> list[float]:
    """Adjust p values of several comparisons (Holm, 1979), so that one in 20 families errs at 0.05.

    Args:
        values: p of each comparison.
    """
    order = np.argsort(values, kind="stable")
    factors = np.arange(len(values), 0, -1)
    adjusted = np.minimum(1.0, np.maximum.accumulate(np.asarray(values)[order] * factors))
    found = np.empty(len(values))
    found[order] = adjusted
    return found.tolist()
