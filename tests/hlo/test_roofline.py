"""Costs by hand."""

from types import SimpleNamespace

import pytest

from chomp.hlo.accelerators import ACCELERATORS, accelerator
from chomp.hlo.collectives import Collective
from chomp.hlo.compiled import Program
from chomp.hlo.executions import derived
from chomp.hlo.figures import figures
from chomp.hlo.module import parse
from chomp.hlo.roofline import LAUNCH, OF_BANDWIDTH, OF_F32_PEAK, OF_PEAK, Cluster, cost

H100 = accelerator("h100")
PAIRS = ((0, 1), (2, 3))
EVERYONE = ((0, 1, 2, 3),)
ACROSS = ((0, 2), (1, 3))

HLO = """HloModule m

ENTRY %main (a: bf16[8192,8192], s: f32[]) -> f32[8192,8192] {
  %a = bf16[8192,8192] parameter(0)
  %s = f32[] parameter(1)
  %wide = f32[8192,8192] convert(%a)
  %small = f32[] negate(%s)
  %half = bf16[8192,8192] dot(%a, %a), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT %full = f32[8192,8192] dot(%wide, %wide), lhs_contracting_dims={1}, rhs_contracting_dims={0}, operand_precision={highest,highest}
}
"""  # noqa: E501


def program() -> Program:
    module = parse(HLO)
    memory = SimpleNamespace(temp_size_in_bytes=1, argument_size_in_bytes=2, peak_memory_in_bytes=3)
    return Program(module, derived(module), memory, {}, 0, 1.0)


def test_the_longest_of_three_counts() -> None:
    made, flops = program(), 2 * 8192**3
    found = {
        name: cost(made, execution, Cluster(H100, 1), None)
        for name, execution in made.executions.by_name.items()
    }
    assert {name: one.bound for name, one in found.items()} == {
        "wide": "bandwidth",
        "small": "launches",
        "half": "products",
        "full": "products",
    }
    assert found["wide"].seconds == pytest.approx(8192**2 * 6 / (3.35e12 * OF_BANDWIDTH))
    assert found["small"].seconds == LAUNCH
    assert found["half"].seconds == pytest.approx(flops / (989.5e12 * OF_PEAK))
    assert found["full"].seconds == pytest.approx(flops / (66.9e12 * OF_F32_PEAK))
    assert found["half"].flops == {"bf16": flops} and found["full"].flops == {"f32": flops}


def test_figures_are_sums() -> None:
    found = figures(program(), Cluster(H100, 1), 1)
    values = found.to_json()
    assert values["operations"] == 4 and not values["operations_exact"]
    assert values["flops_bf16"] == values["flops_f32"] == 2 * 8192**3
    assert values["bytes_moved"] == 8192**2 * (6 + 6 + 12) + 8
    assert sum(values["bounds"].values()) == pytest.approx(values["estimated_seconds"])
    assert sum(row["seconds"] for row in values["parts"].values()) == pytest.approx(
        values["estimated_seconds"]
    )
    assert [one["precision"] for one in values["float32_products"]] == ["f32"]


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
    assert Cluster(H100, per_host).bandwidth(groups) == speed
    assert Cluster(H100, per_host, network=1e12).bandwidth(groups) == 450e9


def test_a_collective_costs_what_it_sends() -> None:
    made = program()
    execution = made.executions.by_name["wide"]
    gather = Collective("all-gather", 4 * 450 * 10**6, EVERYONE, ())
    found = cost(made, execution, Cluster(H100, 4), gather)
    assert (found.bound, found.moved) == ("communication", 0)
    assert found.seconds == pytest.approx(0.003)


def test_data_sheets_are_complete() -> None:
    for one in ACCELERATORS:
        assert one.bf16 > one.tf32 >= one.f32 > 1e13 and one.memory > 1e10
        assert one.link > (one.network or 0)
