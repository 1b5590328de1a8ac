from collections.abc import Callable

import pytest

from chomp.config import Config
from chomp.trainer.shared_programs import SharedPrograms, program_key


def test_runs_that_differ_in_rates_and_seeds_share_what_is_compiled(
    make_config: Callable[..., Config],
):
    programs = SharedPrograms()
    one = programs.of(make_config("dummy"))
    other = programs.of(
        make_config("dummy", optim={"lr": 0.1, "weight_decay": 0.0}, train={"seed": 5, "steps": 9})
    )
    assert other.compiled is one.compiled
    assert other.rates.schedule.peak != one.rates.schedule.peak


@pytest.mark.parametrize(
    "sections",
    [
        {"train": {"batch_size": 4}},
        {"train": {"deterministic": False}},
        {"optim": {"adam": {"b1": 0.8}}},
        {"optim": {"name": "muon"}},
        {"model": {"d_model": 32}},
        {"data": {"isolate_documents": True}},
        {"parallel": {"gather": "layer"}},
    ],
)
def test_other_programs_are_others(make_config: Callable[..., Config], sections: dict):
    assert program_key(make_config("dummy", **sections)) != program_key(make_config("dummy"))
