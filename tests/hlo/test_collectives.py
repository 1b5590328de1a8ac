"""Collectives, counted in programs that XLA made, against counts by hand."""

import subprocess
import sys
import textwrap

import pytest
from jaxlib import _hlo

from chomp.hlo.collectives import Collective, collectives

# A mesh of 4 x 2; each device has 32 rows of the weights and 4 of each of 6 microbatches.
PROGRAM = """
    import jax
    import jax.numpy as jnp
    from jax.sharding import PartitionSpec as P

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 8)
    mesh = jax.make_mesh((4, 2), ("data", "fsdp"), axis_types=(jax.sharding.AxisType.Auto,) * 2)

    def turn(x, _):
        return jax.lax.ppermute(x, "data", [(i, (i + 1) % 4) for i in range(4)]) + 1, None

    def turns(x, _):
        return jax.lax.scan(turn, x, None, length=5)[0], None

    def add(total, row):
        full = jax.lax.all_gather(total, "fsdp", tiled=True)
        grad = (row @ full.T).T @ row
        return total + jax.lax.psum_scatter(grad, "fsdp", tiled=True), None

    def step(weights, rows):
        total, _ = jax.lax.scan(add, weights, rows)
        total, _ = jax.lax.scan(turns, total, None, length=3)
        total, size = jax.lax.psum((total, total.sum()), "data")
        return jax.lax.all_to_all(total, "data", 1, 1, tiled=True), jax.lax.psum(
            size, ("data", "fsdp")
        )

    sharded = jax.shard_map(
        step,
        mesh=mesh,
        in_specs=(P("fsdp"), P(None, ("data", "fsdp"))),
        out_specs=(P("fsdp"), P()),
        check_vma=False,
    )
    weights = jax.ShapeDtypeStruct((64, 16), jnp.float32)
    rows = jax.ShapeDtypeStruct((6, 32, 16), jnp.float32)
    print(jax.jit(sharded).lower(weights, rows).compile().as_text())
"""

PAIRS = tuple((2 * i, 2 * i + 1) for i in range(4))
COLUMNS = ((0, 2, 4, 6), (1, 3, 5, 7))


def test_a_program_of_every_kind() -> None:
    made = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM)], capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    found = collectives(made.stdout, 8)
    assert {one.kind for one in found} == {
        "all-gather",
        "reduce-scatter",
        "collective-permute",
        "all-reduce",
        "all-to-all",
    }
    of = {kind: [one for one in found if one.kind == kind] for kind in {one.kind for one in found}}
    weights, share = 64 * 16 * 4, 32 * 16 * 4

    (gather,) = of["all-gather"]
    assert (gather.payload, gather.groups, gather.trips) == (weights, PAIRS, (6,))
    assert (gather.size, gather.times, gather.sent) == (2, 6, weights // 2)
    (scatter,) = of["reduce-scatter"]
    assert (scatter.payload, scatter.groups, scatter.trips) == (weights, PAIRS, (6,))
    assert scatter.sent == weights // 2
    (permute,) = of["collective-permute"]
    assert (permute.payload, permute.trips, permute.times) == (share, (3, 5), 15)
    assert set(permute.groups) == {(i, (i + 2) % 8) for i in range(8)}
    both, size = sorted(of["all-reduce"], key=lambda one: one.size)
    assert (both.payload, both.groups, both.trips) == (share + 4, COLUMNS, ())  # in one
    assert both.sent == 2 * 3 * (share + 4) // 4
    assert (size.payload, size.size) == (4, 8)
    (exchange,) = of["all-to-all"]  # XLA gives it four pieces and takes four
    assert (exchange.payload, exchange.sent, exchange.size) == (share, share * 3 // 4, 4)


# As XLA writes it for accelerators: halves that other work may lie between, groups as a formula.
OVERLAPPED = """HloModule m, is_scheduled=true, num_partitions=8

sum (a: f32[], b: f32[]) -> f32[] {
  a = f32[] parameter(0)
  b = f32[] parameter(1)
  ROOT c = f32[] add(a, b)
}

wrapped (p: f32[64]) -> f32[8] {
  p = f32[64] parameter(0)
  ROOT rs = f32[8] reduce-scatter(p), channel_id=4, replica_groups={}, dimensions={0},
    use_global_device_ids=true, to_apply=sum
}

one (p: f32[64]) -> f32[64] {
  p = f32[64] parameter(0)
  ROOT r = f32[64] all-reduce(p), channel_id=5, replica_groups={{0},{1},{2},{3},{4},{5},{6},{7}},
    use_global_device_ids=true, to_apply=sum
}

two (p: f32[64]) -> f32[64] {
  p = f32[64] parameter(0)
  ROOT r = f32[64] all-reduce(p), channel_id=6, replica_groups=[2,4]<=[8],
    use_global_device_ids=true, to_apply=sum
}

body (s: (pred[], f32[64])) -> (pred[], f32[64]) {
  s = (pred[], f32[64]) parameter(0)
  go = pred[] get-tuple-element(s), index=0
  x = f32[64] get-tuple-element(s), index=1
  branch = f32[64] conditional(go, x, x), true_computation=one, false_computation=two
  ROOT t = (pred[], f32[64]) tuple(go, branch)
}

condition (s: (pred[], f32[64])) -> pred[] {
  s = (pred[], f32[64]) parameter(0)
  ROOT go = pred[] get-tuple-element(s), index=0
}

ENTRY main (x: bf16[4,16], y: f32[64], go: pred[]) -> (bf16[16,16], f32[64], f32[8], f32[64]) {
  x = bf16[4,16] parameter(0)
  y = f32[64] parameter(1)
  go = pred[] parameter(2)
  g = (bf16[4,16], bf16[16,16]) all-gather-start(x), channel_id=1,
    replica_groups=[2,4]<=[4,2]T(1,0), dimensions={0}, use_global_device_ids=true
  r = f32[64] all-reduce-start(y), channel_id=2, replica_groups=[4,2]<=[8],
    use_global_device_ids=true, to_apply=sum
  s = ((f32[64]), f32[8]) async-start(y), calls=wrapped
  gd = bf16[16,16] all-gather-done(g)
  rd = f32[64] all-reduce-done(r)
  sd = f32[8] async-done(s)
  state = (pred[], f32[64]) tuple(go, rd)
  loop = (pred[], f32[64]) while(state), condition=condition, body=body
  last = f32[64] get-tuple-element(loop), index=1
  ROOT t = (bf16[16,16], f32[64], f32[8], f32[64]) tuple(gd, rd, sd, last)
}
"""


def test_halves_of_one_collective_count_once() -> None:
    hlo = _hlo.hlo_module_from_text(OVERLAPPED).to_string()
    fours = ((0, 1, 2, 3), (4, 5, 6, 7))
    everyone = (tuple(range(8)),)
    assert collectives(hlo, 8) == [
        Collective("all-gather", 16 * 16 * 2, COLUMNS, ()),
        Collective("all-reduce", 64 * 4, PAIRS, ()),
        Collective("reduce-scatter", 64 * 4, everyone, ()),
        Collective("all-reduce", 64 * 4, fours, (None,)),  # the other branch sends nothing
    ]


@pytest.mark.parametrize(
    ("written", "groups"),
    [
        ("mesh['a'=4,'b'=2] {'a'}", COLUMNS),
        ("mesh['a'=4,'b'=2] {'b'}", PAIRS),
        ("mesh['a'=4,'b'=2] {'a','b'}", (tuple(range(8)),)),
        ("mesh['b'=2,'a'=4], device_ids=([4,2]T(1,0)) {'a'}", COLUMNS),
        ("mesh['a'=2,'b'=4], device_ids=(0,2,4,6,1,3,5,7) {'b'}", COLUMNS),
        ("mesh['a'=8] {'a':(4)2}", PAIRS),
        ("mesh['a'=8] {'a':(1)4}", COLUMNS),
    ],
)
def test_groups_along_a_mesh(written: str, groups: tuple[tuple[int, ...], ...]) -> None:
    """Written as XLA's own parser takes them and gives them back."""
    hlo = f"""HloModule m, num_partitions=8

sum (a: f32[], b: f32[]) -> f32[] {{
  a = f32[] parameter(0)
  b = f32[] parameter(1)
  ROOT c = f32[] add(a, b)
}}

ENTRY main (x: f32[8]) -> f32[8] {{
  x = f32[8] parameter(0)
  ROOT r = f32[8] all-reduce(x), channel_id=1, replica_groups={written},
    use_global_device_ids=true, to_apply=sum
}}
"""
    text = _hlo.hlo_module_from_text(hlo).to_string()
    assert [one.groups for one in collectives(text, 8)] == [groups]


def test_what_is_no_program() -> None:
    with pytest.raises(ValueError, match="ENTRY"):
        collectives("nothing", 8)
