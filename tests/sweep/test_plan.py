from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chomp.errors import ConfigError
from chomp.sweep.arms import Choice, read_axes
from chomp.sweep.budget import Budget
from chomp.sweep.plan import Plan, Wanted, folder_name, read_plan, rungs, timing_key


@pytest.fixture
def planned(config_file: Callable[..., Path]) -> Callable[..., Plan]:
    path = config_file(train={"steps": 40, "eval_every": 5, "seed": 3})

    def plan(*texts: str, **keys: Any) -> Plan:
        keys = {"baseline": None, "seeds": 2, "budget": None, "halving": False} | keys
        return read_plan(Wanted(path, read_axes(texts), (), Choice(), **keys))

    return plan


def test_a_budget_of_tokens_decides_the_steps(planned: Callable[..., Plan]):
    plan = planned("train.batch_size=2,4", budget=Budget(2600, "tokens"))
    # A step has 2 x 2 x 64 tokens, and twice as many.
    assert [config.train.steps for config in plan.configs.values()] == [10, 5]
    with pytest.raises(ConfigError, match=r"train.batch_size=4: --budget: a step has 512 tokens"):
        planned("train.batch_size=2,4", budget=Budget(300, "tokens"))


def test_a_seed_moves_weights_and_order_alone(planned: Callable[..., Plan]):
    plan = planned("optim.lr=1e-3,3e-3", "data.seed=7")
    values = plan.values("optim.lr=3e-3", 1)
    assert (values["train"]["seed"], values["data"]["seed"]) == (4, 8)
    assert values["data"]["eval_seed"] == 7 and values["optim"]["lr"] == 3e-3
    assert [point.run for point in plan.points()] == [
        "optim.lr=1e-3_seed0",
        "optim.lr=3e-3_seed0",
        "optim.lr=1e-3_seed1",
        "optim.lr=3e-3_seed1",
    ]


def test_runs_with_other_rates_are_timed_together(planned: Callable[..., Plan]):
    plan = planned("optim.lr=1e-3,3e-3", "optim.adam.b1=0.8,0.9")
    assert len({timing_key(config) for config in plan.configs.values()}) == 2


def test_halving_compares_at_evaluations(planned: Callable[..., Plan]):
    assert rungs(planned(halving=True).base) == [10, 20, 40]
    assert rungs(planned("train.eval_every=7").base) == [7, 21, 40]
    with pytest.raises(ConfigError, match=r"at most a quarter of train.steps .* is 10 \(got 11\)"):
        planned("train.eval_every=11", halving=True)


def test_names_of_folders():
    assert folder_name("optim.lr=3e-3,train.steps=5") == "optim.lr=3e-3,train.steps=5"
    odd = [folder_name(f"data.files=[{name}]") for name in ("a/b", "a b", "ä" * 200)]
    assert len(set(odd)) == 3
    assert all("/" not in name and " " not in name and len(name) < 100 for name in odd)
