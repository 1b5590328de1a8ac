import numpy as np
import pytest

from chomp.sweep.figures import Evaluations


def test_scores_at_equal_seconds_are_interpolated():
    found = Evaluations(
        np.array([5.0, 10.0]), np.array([20.0, 30.0]), np.array([3.0, 2.0]), np.array([6.0, np.nan])
    )
    assert found.at_seconds("bits_per_byte", 25.0) == pytest.approx(2.5)
    assert found.at_seconds("bits_per_byte", 30.0) == 2.0
    assert found.at_seconds("bits_per_byte", 19.0) is None
    assert found.at_seconds("bits_per_byte", 31.0) is None
    assert found.at_step("loss", 5) == 6.0
    assert found.at_step("loss", 10) is None and found.at_step("loss", 7) is None
