"""Matrix products of a program: their operations, and in which precision."""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from chomp.hlo.module import ArrayShape, Instruction, Module, arrays

Precision = Literal["bf16", "tf32", "f32"]

_CONTRACTED = re.compile(r"lhs_contracting_dims=\{([\d,]*)\}")
_OPERAND_PRECISION = re.compile(r"operand_precision=\{([^}]*)\}")
_ALGORITHM = re.compile(r"algorithm=(\w+)")
_LABELS = re.compile(r"dim_labels=\w+_(\w+)->")
_HALF = ("bf16", "f16", "f8")
# Products that an algorithm makes of one, in the type that its name begins with.
_REPEATS = re.compile(r"_x(\d+)$")


@dataclass(frozen=True)
class Product:
    """A matrix product, or a convolution.

    Attributes:
        instruction: the one that has it.
        flops: those of one execution, two for each multiply and add.
        precision: the one in which the device multiplies: `f32` without tensor cores, or `tf32`.
        types: types of both factors and of the result.
        shapes: shapes of both factors.
    """

    instruction: Instruction
    flops: int
    precision: Precision
    types: tuple[str, str, str]
    shapes: tuple[tuple[int, ...], tuple[int, ...]]


def products(module: Module, one: Instruction) -> Iterator[Product]:
    """Yield the products of an instruction; of a fusion all in it."""
    if one.operation in ("dot", "convolution"):
        yield _product(module, one)
    elif one.operation == "fusion":
        for called in one.called:
            for inner in module.computations[called].values():
                yield from products(module, inner)
    elif one.operation == "custom-call" and one.target.startswith("__cublas"):
        yield _library_product(module, one)


def _product(module: Module, one: Instruction) -> Product:
    left, right = (arrays(operand.shape)[0] for operand in module.operands(one)[:2])
    if one.operation == "dot":
        contracted = _CONTRACTED.search(one.attributes)
        places = contracted[1].split(",") if contracted and contracted[1] else []
        terms = math.prod(left.dims[int(place)] for place in places)
    else:  # all of the kernel but its output features
        labels = _LABELS.search(one.attributes)
        terms = right.elements // (right.dims[labels[1].index("o")] if labels else 1)
    algorithm, chosen = _ALGORITHM.search(one.attributes), _OPERAND_PRECISION.search(one.attributes)
    wanted = algorithm[1] if algorithm else chosen[1] if chosen else ""
    return _made(one, left, right, arrays(one.shape)[0], terms, wanted)


def _library_product(module: Module, one: Instruction) -> Product:
    """Read a call of cuBLAS, whose dimensions are in its configuration."""
    left, right = (arrays(operand.shape)[0] for operand in module.operands(one)[:2])
    start = one.attributes.index("backend_config=") + len("backend_config=")
    config = json.JSONDecoder().raw_decode(one.attributes, start)[0]["gemm_backend_config"]
    places = config["dot_dimension_numbers"]["lhs_contracting_dimensions"]
    terms = math.prod(left.dims[int(place)] for place in places)
    settings = config.get("precision_config", {})
    algorithm = settings.get("algorithm", "ALG_UNSET").removeprefix("ALG_").lower()
    chosen = ",".join(settings.get("operand_precision", ())).lower()
    wanted = chosen if algorithm == "unset" else algorithm
    return _made(one, left, right, arrays(one.shape)[0], terms, wanted)


def _made(
    one: Instruction, left: ArrayShape, right: ArrayShape, out: ArrayShape, terms: int, wanted: str
) -> Product:
    flops = 2 * out.elements * terms * (4 if left.dtype.startswith("c") else 1)
    if repeats := _REPEATS.search(wanted):
        flops *= int(repeats[1])
    types = (left.dtype, right.dtype, out.dtype)
    return Product(one, flops, _precision(left.dtype, wanted), types, (left.dims, right.dims))


def _precision(dtype: str, wanted: str) -> Precision:
    if dtype.startswith(_HALF) or wanted.startswith("dot_bf16"):
        return "bf16"
    if dtype != "f32" or "highest" in wanted or wanted.startswith("dot_f32"):
        return "f32"
    return "tf32"  # what XLA makes of float32 at its default precision
