from collections.abc import Callable

import pytest

from chomp.trainer.mfu import MfuMeter


def never() -> Callable[[], float]:
    raise AssertionError("nothing is to be measured")


def test_against_a_known_peak():
    used = MfuMeter(6_000_000, 1e9, never)
    assert used(0.03) == {"mfu": pytest.approx(0.2)}


def test_elsewhere_against_the_best_of_one_measurement():
    made, rates = [], iter([3e8, 5e8, 4e8])

    def measure() -> Callable[[], float]:
        made.append(True)
        return lambda: next(rates)

    used = MfuMeter(6_000_000, None, measure)
    assert made == []
    assert used(0.03) == {"fraction_of_matmul_bound": pytest.approx(0.4)}
    assert used(0.06) == {"fraction_of_matmul_bound": pytest.approx(0.2)}
    assert len(made) == 1


def test_a_bound_that_is_surpassed_is_measured_again_and_else_not_told():
    """Where the machine was busy while it was measured, a share above 1 would be untrue."""
    rates = iter([1e8, 1e8, 1e8, 3e8, 5e8, 1e8, 4e8, 4e8, 4e8])
    used = MfuMeter(6_000_000, None, lambda: lambda: next(rates))
    assert used(0.1) == {"fraction_of_matmul_bound": pytest.approx(0.6)}
    assert used(0.03) == {"fraction_of_matmul_bound": pytest.approx(0.4)}
    assert used(0.01) == {}
    assert used(0.03) == {"fraction_of_matmul_bound": pytest.approx(0.4)}
