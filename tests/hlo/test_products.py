"""Products, in programs of every kind."""

from collections.abc import Callable

import pytest

from chomp.hlo.module import Module, parse
from chomp.hlo.products import products

PROGRAM = """\
    fused (p: bf16[16,32], q: bf16[32,8]) -> f32[16,8] {{
      p = bf16[16,32] parameter(0)
      q = bf16[32,8] parameter(1)
      ROOT fd = f32[16,8] dot(p, q), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}
    }}

    ENTRY main (a: bf16[16,32], b: bf16[32,8], c: f32[16,32], e: f32[32,8]) -> f32[16,8] {{
      a = bf16[16,32] parameter(0)
      b = bf16[32,8] parameter(1)
      c = f32[16,32] parameter(2)
      e = f32[32,8] parameter(3)
      half = f32[16,8] fusion(a, b), kind=kLoop, calls=fused
      ROOT d = f32[16,8] dot(c, e), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}{how}
    }}
"""
FLOPS = 2 * 16 * 8 * 32


@pytest.mark.parametrize(
    ("how", "precision", "times"),
    [
        ("", "tf32", 1),
        (", operand_precision={highest,highest}", "f32", 1),
        (", algorithm=dot_bf16_bf16_f32_x3", "bf16", 3),
        (", algorithm=dot_tf32_tf32_f32", "tf32", 1),
        (", algorithm=dot_f32_f32_f32", "f32", 1),
    ],
)
def test_precision(read: Callable[[str], Module], how: str, precision: str, times: int) -> None:
    module = read(PROGRAM.format(how=how))
    (product,) = products(module, module.entry_body()["d"])
    assert (product.precision, product.flops) == (precision, FLOPS * times)
    assert (product.types, product.shapes) == (("f32", "f32", "f32"), ((16, 32), (32, 8)))
    (product,) = products(module, module.entry_body()["half"])
    assert (product.precision, product.flops) == ("bf16", FLOPS)
    assert list(products(module, module.entry_body()["a"])) == []


# As XLA writes it, but for fields that don't matter here.
LIBRARY = r"""HloModule m

ENTRY %main (a: f32[4,16,32], b: f32[4,32,8]) -> (f32[4,16,8], s8[100]) {
  %a = f32[4,16,32] parameter(0)
  %b = f32[4,32,8] parameter(1)
  ROOT %d = (f32[4,16,8], s8[100]) custom-call(%a, %b), custom_call_target="__cublas$lt$matmul", metadata={op_name="x"}, backend_config={"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["2"],"rhs_contracting_dimensions":["1"],"lhs_batch_dimensions":["0"],"rhs_batch_dimensions":["0"]},"precision_config":{"operand_precision":["HIGHEST","HIGHEST"],"algorithm":"ALG_UNSET"}}}
}
"""  # noqa: E501


def test_calls_of_the_library() -> None:
    module = parse(LIBRARY)
    (product,) = products(module, module.entry_body()["d"])
    assert (product.precision, product.flops) == ("f32", 4 * FLOPS)
