import pytest
from chomp.plan.accelerators import ACCELERATORS, USUAL, accelerator

from chomp.errors import ConfigError
from chomp.hlo.collectives import Collective
from chomp.plan.estimate import bandwidth, estimate

H100 = accelerator("h100-sxm")
PAIRS = ((0, 1), (2, 3))
EVERYONE = ((0, 1, 2, 3),)
ACROSS = ((0, 2), (1, 3))


def test_each_accelerator_has_a_peak_rate_and_links() -> None:
    assert all(one.peak > 1e14 or one.name.startswith("rtx") for one in ACCELERATORS)
    assert all(one.memory > 1e10 and one.link > (one.network or 0) for one in ACCELERATORS)
    assert {one.name for one in ACCELERATORS} > set(USUAL)


def test_an_unknown_accelerator_is_refused_with_the_list() -> None:
    assert accelerator("H100-SXM") is H100
    with pytest.raises(ConfigError, match=r"--accelerator h100: isn't known.*h100-pcie, h100-sxm"):
        accelerator("h100")


@pytest.mark.parametrize(
    ("groups", "per_host", "speed"),
    [
        (PAIRS, 2, 450e9),  # nothing leaves a host
        (EVERYONE, 4, 450e9),
        (EVERYONE, 2, 100e9),  # two adapters for two devices
        (ACROSS, 2, 50e9),  # each alone on its host
        (EVERYONE, 1, 50e9),
        ((tuple(range(32)),), 16, 450e9),  # 16 adapters are faster than the links within
    ],
)
def test_the_slowest_way_of_a_group(
    groups: tuple[tuple[int, ...], ...], per_host: int, speed: float
) -> None:
    assert bandwidth(groups, per_host, 450e9, 50e9) == speed


def test_a_step_by_hand() -> None:
    gather = Collective("all-gather", 4 * 450 * 10**6, EVERYONE, (8,))  # sends 1.35 GB, 8 times
    reduce = Collective("all-reduce", 4 * 10**9, ACROSS, ())  # sends 4 GB
    values = {"flops": 4 * 989.5e12, "tokens": 1000, "mfu": 0.5, "devices": 4}
    here = estimate(H100, [gather, reduce], hosts=1, **values)
    assert here is not None
    assert here.compute == pytest.approx(2.0)
    assert here.communication == pytest.approx(8 * 0.003 + 4 / 450)
    assert here.slow == pytest.approx(1000 / (2 + 0.024 + 4 / 450))
    assert here.fast == pytest.approx(500)
    apart = estimate(H100, [gather, reduce], hosts=2, **values)
    assert apart is not None
    assert apart.communication == pytest.approx(8 * 1.35 / 100 + 4 / 50)


def test_a_network_that_nobody_knows() -> None:
    values = {"flops": 1e15, "tokens": 1000, "mfu": 0.5, "devices": 4, "hosts": 2}
    reduce = Collective("all-reduce", 10**9, EVERYONE, ())
    card = accelerator("rtx-4090")
    assert estimate(card, [reduce], **values) is None
    known = estimate(card, [reduce], **values, network=12.5e9)
    assert known is not None and known.communication == pytest.approx(1.5 / 25)
