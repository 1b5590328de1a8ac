import pytest

from chomp.errors import ConfigError
from chomp.hlo.accelerators import accelerator
from chomp.hlo.collectives import Collective
from chomp.hlo.roofline import Cluster
from chomp.plan.estimate import by_utilization
from chomp.plan.request import Asked, Request, make_request, refuse_earlier_option

H100 = accelerator("h100")
EVERYONE = ((0, 1, 2, 3),)
ACROSS = ((0, 2), (1, 3))
ASKED = {
    "devices": 4,
    "hosts": 1,
    "memory_gb": None,
    "mfu": None,
    "network_gbps": None,
    "search": True,
    "propose": False,
}


def request(name: str = "h100", **values: object) -> Request:
    return make_request(Asked(name, **(ASKED | values)))  # type: ignore[arg-type]


def test_the_option_of_before() -> None:
    with pytest.raises(ConfigError, match=r"--accelerator h100-sxm: write --for h100"):
        refuse_earlier_option(("h100-sxm",))
    refuse_earlier_option(())


def test_a_step_by_hand() -> None:
    gather = Collective("all-gather", 4 * 450 * 10**6, EVERYONE, (8,))  # sends 1.35 GB, 8 times
    reduce = Collective("all-reduce", 4 * 10**9, ACROSS, ())  # sends 4 GB
    values = {"flops": 4 * 989.5e12, "tokens": 1000, "mfu": 0.5, "devices": 4}
    here = by_utilization(Cluster(H100, 4), [gather, reduce], **values)
    assert here.compute == pytest.approx(2.0)
    assert here.communication == pytest.approx(8 * 0.003 + 4 / 450)
    assert here.slow == pytest.approx(1000 / (2 + 0.024 + 4 / 450))
    assert here.fast == pytest.approx(500)
    apart = by_utilization(Cluster(H100, 2), [gather, reduce], **values)
    assert apart.communication == pytest.approx(8 * 1.35 / 100 + 4 / 50)


def test_what_is_asked_for() -> None:
    asked = request("H100", hosts=2, memory_gb=20, network_gbps=100)
    assert asked.cluster == Cluster(H100, 2, 12.5e9)
    assert (asked.hosts, asked.limit) == (2, 20e9)
    assert request("rtx4090").limit == pytest.approx(0.9 * 24e9)


@pytest.mark.parametrize(
    ("name", "values", "error"),
    [
        ("h1000", {}, r"--for h1000: isn't known.*h100, h200"),
        ("h100", {"hosts": 3}, r"--hosts 3: 4 devices can't be spread evenly; it can be 1, 2, 4"),
        ("rtx4090", {"hosts": 2}, r"--hosts 2: rtx4090 has no usual network: give --network-gbps"),
        ("v5e", {"propose": True}, r"--propose: v5e is no GPU"),
    ],
)
def test_what_is_refused(name: str, values: dict[str, object], error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        request(name, **values)
