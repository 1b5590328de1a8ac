from collections.abc import Callable

import pytest

from chomp.hlo.module import Frame, Module, arrays, parse, size_of

PROGRAM = """\
    body (s: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
      s = (s32[], f32[8,4]) parameter(0)
      i = s32[] get-tuple-element(s), index=0
      x = f32[8,4] get-tuple-element(s), index=1
      y = f32[8,4] add(x, x), metadata={op_name="jit(f)/add" stack_frame_id=2}
      ROOT t = (s32[], f32[8,4]) tuple(i, y)
    }

    condition (s: (s32[], f32[8,4])) -> pred[] {
      s = (s32[], f32[8,4]) parameter(0)
      ROOT go = pred[] constant(true)
    }

    ENTRY main (all: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
      all = (s32[], f32[8,4]) parameter(0)
      ROOT loop = (s32[], f32[8,4]) while(all), condition=condition, body=body,
        backend_config={"known_trip_count":{"n":"7"}}
    }
"""


def test_shapes() -> None:
    (pair, one) = arrays("(bf16[2,3]{1,0:T(8,128)}, pred[5]{0})")
    assert (pair.dtype, pair.dims, pair.size) == ("bf16", (2, 3), 12)
    assert (one.dtype, one.elements, one.size) == ("pred", 5, 5)
    assert size_of("(f32[], s4[8], c64[<=2], token[])") == 4 + 4 + 16


def test_instructions(read: Callable[[str], Module]) -> None:
    module = read(PROGRAM)
    loop = module.entry_body()["loop"]
    assert (loop.operation, loop.operands, loop.turns, loop.is_root) == ("while", ("all",), 7, True)
    assert loop.called == (loop.attribute("body"), loop.attribute("condition"))
    body = module.computations[loop.called[0]]
    (y,) = (one for one in body.values() if one.operation == "add")
    assert [one.operation for one in module.operands(y)] == ["get-tuple-element"] * 2
    assert module.root(loop.called[0]).operation == "tuple"
    assert module.instructions[y.name] is y


FRAMES = """\
HloModule m

FileNames
1 "/a/inner.py"
2 "/a/outer.py"

FunctionNames
1 "f"
2 "g.<locals>.h"

FileLocations
1 {file_name_id=1 function_name_id=1 line=10 end_line=10 column=0 end_column=0}
2 {file_name_id=2 function_name_id=2 line=20 end_line=20 column=0 end_column=0}

StackFrames
1 {file_location_id=2 parent_frame_id=1}
2 {file_location_id=1 parent_frame_id=1}


ENTRY %main (x: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  ROOT %y = f32[] negate(%x), metadata={op_name="jit(f)/neg" stack_frame_id=2}
}
"""


def test_source_frames() -> None:
    module = parse(FRAMES)
    inner, outer = Frame("/a/inner.py", "f", 10), Frame("/a/outer.py", "g.<locals>.h", 20)
    assert module.frames(module.instructions["y"]) == (inner, outer)
    assert module.frames(module.instructions["x"]) == ()


def test_what_is_no_program() -> None:
    with pytest.raises(ValueError, match="ENTRY"):
        parse("nothing")
