import numpy as np
import pytest

from chomp.report.significance import holm, paired_difference


def test_a_paired_t_test_by_hand():
    """Differences 1, 2, 3: mean 2, deviation 1, t = 2 * sqrt(3) with two degrees of freedom.

    The t distribution with two has p = 1 - t / sqrt(t^2 + 2), and 4.302653 as its 97.5% quantile.
    """
    found = paired_difference(np.array([3.0, 5.0, 7.0]), np.array([2.0, 3.0, 4.0]))
    half = 4.302653 / np.sqrt(3)
    assert found.pairs == 3 and found.difference == 2.0
    assert (found.low, found.high) == pytest.approx((2 - half, 2 + half), abs=1e-5)
    assert found.p == pytest.approx(1 - np.sqrt(12 / 14))


def test_one_pair_tells_nothing_of_chance():
    found = paired_difference(np.array([1.0]), np.array([1.5]))
    assert found == (1, -0.5, None, None, None)


def test_differences_without_spread():
    same = np.array([1.0, 2.0])
    assert paired_difference(same, same) == (2, 0.0, 0.0, 0.0, 1.0)
    assert paired_difference(same + 1, same).p == 0.0


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []
