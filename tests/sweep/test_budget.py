import pytest

from chomp.errors import ConfigError
from chomp.sweep.budget import Budget, Costs, read_budget


def test_budgets():
    assert read_budget("600s") == Budget(600, "s")
    assert read_budget("2e6tokens") == read_budget("2000000 tokens") == Budget(2e6, "tokens")


@pytest.mark.parametrize("text", ["600", "0s", "-1s", "1.2.3s", "5 minutes", "s"])
def test_what_is_none(text: str):
    with pytest.raises(ConfigError, match="write seconds"):
        read_budget(text)


def test_steps_in_a_budget():
    costs = Costs(once=10.0, step=0.25)
    assert costs.steps_in(60.0) == 200
    assert costs.steps_in(10.2) < 1 and costs.steps_in(1.0) < 1
