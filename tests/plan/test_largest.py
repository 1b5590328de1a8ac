"""The search, over memory that grows as it is told to."""

from collections.abc import Callable

import pytest

from chomp.plan.largest import MOST, NEAR, TRIES, largest_fitting
from chomp.plan.sizes import Memory, Sizes

DEVICES = 4


def search(
    total: Callable[[int], float], limit: float, first: int = 2
) -> tuple[Sizes | None, list[int]]:
    """Search with programs that need `total(rows of a device)` bytes; return those looked at."""
    looked = []

    def measure(rows: int) -> Sizes:
        assert rows % DEVICES == 0
        looked.append(rows // DEVICES)
        return Sizes(rows, Memory(10, 20, 0, 10, int(total(rows // DEVICES)) - 40, 0), (), 0.0)

    return largest_fitting(measure(first * DEVICES), measure, DEVICES, limit), looked


@pytest.mark.parametrize("first", [1, 2, 8, 40])
@pytest.mark.parametrize("most", [1, 2, 5, 30])
def test_a_line_is_followed_to_its_end(first: int, most: int) -> None:
    found, looked = search(lambda rows: 1000 + 100 * rows, 1000 + 100 * most + 50, first)
    assert found is not None
    assert found.rows == most * DEVICES or found.memory.total >= NEAR * (1050 + 100 * most)
    assert len(looked) <= 2 + TRIES


def test_steps_on_the_line_are_found_by_looking() -> None:
    found, looked = search(lambda rows: 1000 + 100 * rows + (300 if rows > 9 else 0), 2050)
    assert found is not None and found.rows == 9 * DEVICES
    assert 10 in looked


def test_none_if_one_row_is_too_much() -> None:
    for first in (1, 2, 16):
        assert search(lambda rows: 1000 + 100 * rows, 1099, first)[0] is None


def test_a_model_that_needs_nothing() -> None:
    found, looked = search(lambda rows: 1000, 1e9)
    assert found is not None and max(looked) <= MOST
