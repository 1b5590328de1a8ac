"""Bytes of instructions, by hand."""

from collections.abc import Callable

import pytest

from chomp.hlo.module import Module
from chomp.hlo.traffic import moved

PROGRAM = """\
    sum (p: f32[64,8], q: f32[64,8]) -> f32[64,8] {
      p = f32[64,8] parameter(0)
      q = f32[64,8] parameter(1)
      ROOT a = f32[64,8] add(p, q)
    }

    sliced (p: f32[64,8], i: s32[]) -> f32[1,8] {
      p = f32[64,8] parameter(0)
      i = s32[] parameter(1)
      z = s32[] constant(0)
      b = f32[64,8] bitcast(p)
      s = f32[1,8] dynamic-slice(b, i, z), dynamic_slice_sizes={1,8}
      ROOT n = f32[1,8] negate(s)
    }

    updated (p: f32[64,8], u: f32[1,8], i: s32[]) -> f32[64,8] {
      p = f32[64,8] parameter(0)
      u = f32[1,8] parameter(1)
      i = s32[] parameter(2)
      z = s32[] constant(0)
      ROOT d = f32[64,8] dynamic-update-slice(p, u, i, z)
    }

    two (p: f32[64,8]) -> (f32[64,8], bf16[64,8]) {
      p = f32[64,8] parameter(0)
      e = f32[64,8] exponential(p)
      c = bf16[64,8] convert(e)
      ROOT t = (f32[64,8], bf16[64,8]) tuple(e, c)
    }

    ENTRY main (p: f32[64,8], q: f32[64,8], u: f32[1,8], i: s32[]) -> f32[64,8] {
      p = f32[64,8] parameter(0)
      q = f32[64,8] parameter(1)
      u = f32[1,8] parameter(2)
      i = s32[] parameter(3)
      plain = f32[64,8] fusion(p, q), kind=kLoop, calls=sum
      slice = f32[1,8] fusion(p, i), kind=kLoop, calls=sliced
      update = f32[64,8] fusion(p, u, i), kind=kLoop, calls=updated
      both = (f32[64,8], bf16[64,8]) fusion(p), kind=kLoop, calls=two
      turned = f32[64,8]{0,1} copy(p)
      kernel = f32[64,8] custom-call(p, u), custom_call_target="__gpu$xla.gpu.triton"
      ROOT last = f32[64,8] add(p, q)
    }
"""
WHOLE, ROW = 64 * 8 * 4, 8 * 4


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("plain", 3 * WHOLE),
        ("slice", 2 * ROW + 4),
        ("update", 2 * ROW + 4),  # of the array only what is written
        ("both", 2 * WHOLE + WHOLE // 2),
        ("turned", 2 * WHOLE),
        ("kernel", 2 * WHOLE + ROW),
    ],
)
def test_bytes(read: Callable[[str], Module], name: str, size: int) -> None:
    module = read(PROGRAM)
    assert moved(module, module.entry_body()[name]) == size
