import math
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from chomp.config import OptimConfig
from chomp.optim import schedules


def scheduled(peak: float, *, warmup_steps: int, decay_steps: int, min_ratio: float):
    keys = {"warmup_steps": warmup_steps, "decay_steps": decay_steps, "min_lr_ratio": min_ratio}
    return schedules(OptimConfig(lr=peak, schedule="cosine", **keys), 1000)["lr"]


def by_hand(count: int, peak: float, warmup: int, decay: int, floor: float) -> float:
    if count < warmup:
        return peak * (count + 1) / warmup
    done = min(count - warmup, decay) / decay
    return peak * (floor + (1 - floor) * (1 + math.cos(math.pi * done)) / 2)


@pytest.mark.parametrize(
    ("warmup", "decay", "floor"), [(10, 90, 0.0), (1, 20, 0.1), (0, 30, 0.5), (7, 5, 1.0)]
)
def test_every_update_has_the_rate_of_the_formula(warmup: int, decay: int, floor: float):
    rate = scheduled(3e-3, warmup_steps=warmup, decay_steps=decay, min_ratio=floor)
    for count in range(warmup + decay + 20):
        expected = by_hand(count, 3e-3, warmup, decay, floor)
        assert float(rate(count)) == pytest.approx(expected, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("warmup", [0, 1, 10])
def test_the_first_update_has_a_positive_rate_and_the_peak_is_reached(warmup: int):
    rate = scheduled(1.0, warmup_steps=warmup, decay_steps=50, min_ratio=0.0)
    rates = [float(rate(count)) for count in range(60)]
    assert rates[0] > 0
    assert rates[max(0, warmup - 1)] == rates[warmup] == max(rates) == 1.0
    assert rates[: max(1, warmup)] == sorted(rates[: max(1, warmup)])
    assert rates[max(0, warmup - 1) :] == sorted(rates[max(0, warmup - 1) :], reverse=True)


def test_the_floor_is_kept():
    rate = scheduled(2.0, warmup_steps=4, decay_steps=10, min_ratio=0.25)
    assert float(rate(13)) > float(rate(14)) == float(rate(1_000_000)) == 0.5


def test_the_decay_lasts_until_the_last_step_unless_it_is_given():
    assert OptimConfig(warmup_steps=10).decay_length(100) == 90
    assert OptimConfig(warmup_steps=10, decay_steps=40).decay_length(100) == 40
    assert OptimConfig(warmup_steps=5).decay_length(5) == 1


def test_a_second_rise_changes_no_other_rate():
    config = OptimConfig(lr=2e-3, warmup_steps=4)
    once = schedules(config, 60)["lr"]
    again = config.model_copy(update={"rewarm_from": 20, "rewarm_steps": 8})
    rate = schedules(again, 60)["lr"]
    for count in range(70):
        share = (count - 19) / 8 if 20 <= count < 28 else 1
        assert float(rate(count)) == pytest.approx(float(once(count)) * share, rel=1e-6)
        assert share < 1 or float(rate(count)) == float(once(count))
    at_once = rate(jnp.arange(9, 30))
    assert at_once.tolist() == pytest.approx([float(rate(count)) for count in range(9, 30)])


def test_muon_has_its_own_rate():
    config = OptimConfig(name="muon", lr=2e-3, warmup_steps=4)
    rates = schedules(config, 10)
    for count in (0, 3, 7):
        assert rates["lr_muon"](count) == pytest.approx(100 * rates["lr"](count))
    assert list(schedules(OptimConfig(), 10)) == ["lr"]


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant", "wsd"])
def test_the_host_computes_what_the_step_does(schedule: str):
    config = OptimConfig(lr=3e-3, schedule=schedule, warmup_steps=7, rewarm_from=30, rewarm_steps=5)
    rate = schedules(config, 60)["lr"]
    on_host, on_device = (rate(xp.arange(70)) for xp in (np, jnp))
    assert isinstance(on_host, np.ndarray) and on_host.dtype == np.float32
    np.testing.assert_allclose(on_host, on_device, rtol=1e-6)


def rates_of(steps: int, **keys: Any) -> list[float]:
    rate = schedules(OptimConfig(lr=1.0, **keys), steps)["lr"]
    return rate(jnp.arange(steps)).tolist()


def test_a_line_and_a_constant():
    line = rates_of(12, schedule="linear", warmup_steps=2, min_lr_ratio=0.2)
    expected = [0.5, 1.0, *(0.2 + 0.8 * (1 - done / 10) for done in range(10))]
    assert line == pytest.approx(expected, rel=1e-6)
    constant = rates_of(6, schedule="constant", warmup_steps=2, min_lr_ratio=0.2)
    assert constant == [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("shape", ["linear", "sqrt"])
def test_wsd_falls_in_the_last_share_of_the_run_only(shape: str):
    keys = {"schedule": "wsd", "decay_shape": shape, "warmup_steps": 4, "min_lr_ratio": 0.1}
    rates = rates_of(40, decay_share=0.25, **keys)
    assert rates[4:31] == [1.0] * 27
    power = 1.0 if shape == "linear" else 0.5
    expected = [0.1 + 0.9 * (1 - (done / 10) ** power) for done in range(10)]
    assert rates[30:] == pytest.approx(expected, rel=1e-5)
    # A longer run has the same rates until the shorter one begins to fall.
    assert rates_of(80, decay_share=0.25, **keys)[:31] == rates[:31]
    assert rates_of(40, decay_steps=10, **keys) == rates


def test_wsd_falls_after_the_warm_up_at_the_earliest():
    rates = rates_of(10, schedule="wsd", decay_share=1.0, warmup_steps=4, decay_shape="linear")
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])
    assert rates_of(10, schedule="wsd", decay_steps=99, warmup_steps=4, decay_shape="linear") == (
        rates
    )
