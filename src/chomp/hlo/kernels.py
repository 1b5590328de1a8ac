"""Costs that Pallas kernels declare.

XLA's text of a program has their operands and results, and nothing of their arithmetic. The
`cost_estimate` that a kernel was written with is in the traced program only.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from chomp.hlo.module import Instruction, size_of


class Declared(NamedTuple):
    """FLOPs of a kernel, and at which rate: products of bfloat16 on tensor cores, or others."""

    flops: int
    rate: Literal["bf16", "kernel"]


Kernels = Mapping[tuple[str, int], Declared]
"""Declared costs, by a kernel's name and the bytes of its results."""

_NAME = re.compile(r'\bname = "([^"]+)"')
_OP_NAME = re.compile(r'op_name="([^"]*)"')


def kernel_flops(jaxpr: Any) -> Kernels:
    """Return what the kernels of a traced program declare; kernels without an estimate are 0."""
    found = {}
    for equation in _equations(jaxpr):
        if equation.primitive.name == "pallas_call":
            cost = equation.params.get("cost_estimate")
            outputs = (variable.aval for variable in equation.outvars)
            size = sum(int(np.prod(aval.shape)) * aval.dtype.itemsize for aval in outputs)
            rate = "bf16" if _multiplies_bfloat16(equation.params["jaxpr"]) else "kernel"
            flops = 0 if cost is None else int(cost.flops)
            found[_kernel_name(equation), size] = Declared(flops, rate)
    return found


def flops_of_kernel(kernels: Kernels, one: Instruction) -> Declared:
    """Return the FLOPs that the kernel of a custom call declares; 0: none, or it isn't one."""
    nothing = Declared(0, "kernel")
    if one.operation != "custom-call":
        return nothing
    named, path = _NAME.search(one.attributes), _OP_NAME.search(one.attributes)
    names = {named[1]} if named else set((path[1] if path else "").split("/"))
    size = size_of(one.shape)
    return max(
        (n for (name, bytes_), n in kernels.items() if name in names and bytes_ == size),
        default=nothing,
    )


def _multiplies_bfloat16(jaxpr: Any) -> bool:
    """Return whether a kernel has products of bfloat16; all that it declares then counts so."""
    return any(
        equation.primitive.name == "dot_general"
        and all(operand.aval.dtype == "bfloat16" for operand in equation.invars)
        for equation in _equations(jaxpr)
    )


def _kernel_name(equation: Any) -> str:
    params = equation.params
    return params.get("name") or str(params.get("name_and_src_info", "")).split(" ")[0]


def _equations(jaxpr: Any) -> Iterator[Any]:
    """Yield the equations of a program and of those in it, but not those within kernels."""
    inner = getattr(jaxpr, "jaxpr", jaxpr)
    for equation in inner.eqns:
        yield equation
        if equation.primitive.name == "pallas_call":
            continue
        for value in equation.params.values():
            for part in value if isinstance(value, tuple | list) else (value,):
                if hasattr(getattr(part, "jaxpr", part), "eqns"):
                    yield from _equations(part)
