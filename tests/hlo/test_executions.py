"""Lists of launches as XLA writes them, counted by hand."""

from collections.abc import Callable

from chomp.hlo.executions import TURNS, derived, launched
from chomp.hlo.module import Module
from chomp.hlo.thunks import parse_thunks

PROGRAM = """\
    add (s: (s32[], f32[8])) -> (s32[], f32[8]) {
      s = (s32[], f32[8]) parameter(0)
      i = s32[] get-tuple-element(s), index=0
      x = f32[8] get-tuple-element(s), index=1
      y = f32[8] add(x, x)
      z = f32[8] multiply(y, y)
      ROOT t = (s32[], f32[8]) tuple(i, z)
    }

    go (s: (s32[], f32[8])) -> pred[] {
      s = (s32[], f32[8]) parameter(0)
      i = s32[] get-tuple-element(s), index=0
      ROOT c = pred[] compare(i, i), direction=EQ
    }

    add2 (s: (s32[], f32[8])) -> (s32[], f32[8]) {
      s = (s32[], f32[8]) parameter(0)
      i = s32[] get-tuple-element(s), index=0
      x = f32[8] get-tuple-element(s), index=1
      y2 = f32[8] add(x, x)
      ROOT t = (s32[], f32[8]) tuple(i, y2)
    }

    go2 (s: (s32[], f32[8])) -> pred[] {
      s = (s32[], f32[8]) parameter(0)
      i = s32[] get-tuple-element(s), index=0
      ROOT c2 = pred[] compare(i, i), direction=EQ
    }

    ENTRY main (s: (s32[], f32[8])) -> (s32[], f32[8]) {
      s = (s32[], f32[8]) parameter(0)
      known = (s32[], f32[8]) while(s), condition=go, body=add,
        backend_config={"known_trip_count":{"n":"7"}}
      ROOT open_end = (s32[], f32[8]) while(known), condition=go2, body=add2
    }
"""

THUNKS = """\
001: kWhile        [prev=003 (1) | next=015 (1)]
condition:
    002: kCustomKernel [source | sink] go grid: [1, 1, 1] threads: [1, 1, 1]
  body:
    000: kCommandBuffer [source | sink]
        003: kCustomKernel       [source       | next=007 (1)] add grid: [32, 1, 1]
        004: kDynamicSliceFusion [prev=007 (1) | next=011 (2)] params=1, results=1
            005: kCopy [source | sink] kCopy
006: kWhile        [prev=003 (1) | next=015 (1)]
condition:
    007: kCustomKernel [source | sink] go grid: [1, 1, 1] threads: [1, 1, 1]
  body:
    008: kCustomKernel [source | sink] add grid: [1, 1, 1] threads: [1, 1, 1]
"""
NAMES = {1: "known", 2: "c", 3: "y", 4: "z", 5: "z", 6: "open_end", 7: "c2", 8: "y2"}


def metadata(names: dict[int, str]) -> str:
    return "".join(
        f'thunk_metadata {{\n  thunk_info {{\n    profile_annotation: "{name}"\n'
        f"    thunk_id: {number}\n  }}\n}}\n"
        for number, name in names.items()
    )


def test_loops_and_graphs(read: Callable[[str], Module]) -> None:
    found = launched(read(PROGRAM), parse_thunks(THUNKS, metadata(NAMES)))
    assert (found.graphs, found.nodes) == (7, 2 * 7)  # the copy is the fusion's own
    assert found.launches == (TURNS + 1) + TURNS  # of the second loop: condition and body
    assert found.waits == TURNS + 1  # the first one's condition never runs
    assert (found.loops, found.unknown_loops) == (2, 1)
    assert found.by_name["y"].times == 7 and found.by_name["y"].loops == ("known",)
    assert found.operations == 14 + 2 * TURNS + 1


def test_without_a_list_instructions_are_counted(read: Callable[[str], Module]) -> None:
    module = read(PROGRAM)
    listed, found = launched(module, parse_thunks(THUNKS, metadata(NAMES))), derived(module)
    assert not found.exact and found.graphs == 0
    assert (found.operations, found.waits) == (listed.operations, listed.waits)
    assert {name: one.times for name, one in found.by_name.items()} == {
        name: one.times for name, one in listed.by_name.items()
    }


BRANCHES = """\
001: kConditional  [prev=001 (1) | sink        ]
  branch_0:
    002: kCopy         [source       | next=003 (1)] kCopy
    003: kCustomKernel [prev=002 (1) | sink        ] sort grid: [1, 1, 1] threads: [256, 1, 1]
  branch_1:
    004: kCustomKernel [source | sink] add grid: [8, 1, 1] threads: [128, 1, 1]
013: kAsyncStart   [prev=011 (1) | next=016 (3)] stream=communication_stream[0], async_id=13
    012: kReduceScatter [source | sink] kReduceScatter
015: kAsyncDone    [source       | sink        ] async_id=13
"""


def test_branches_and_what_runs_aside() -> None:
    found = launched(Module(), parse_thunks(BRANCHES, metadata({12: "rs", 13: "rs-start"})))
    assert (found.launches, found.waits) == (4, 1)
    assert found.by_name["rs"].operations == 1
