"""Bytes that an instruction moves between a device's memory and its cores."""

from collections import defaultdict
from collections.abc import Iterator

from chomp.hlo.module import Instruction, Module, arrays, size_of

_SLICES = ("dynamic-slice", "slice", "gather")
_SAME_BYTES = ("bitcast", "reshape")


def moved(module: Module, one: Instruction) -> int:
    """Return the bytes that one execution reads and writes.

    What is sliced counts as large as its slices, what is updated in place as its update. A custom
    call, Pallas kernels included, reads its operands and writes its results once.
    """
    operands = module.operands(one)
    if one.operation == "fusion":
        (called,) = one.called
        return _fusion(module, called)
    if one.operation in _SLICES:
        return 2 * size_of(one.shape)
    if one.operation == "dynamic-update-slice":
        return 2 * size_of(operands[1].shape)
    if one.operation == "scatter":
        return 3 * size_of(operands[-1].shape)
    if one.operation == "custom-call" and one.target.startswith("__cublas"):
        return _results(one) + sum(size_of(operand.shape) for operand in operands)
    return size_of(one.shape) + sum(size_of(operand.shape) for operand in operands)


def _results(one: Instruction) -> int:
    """Return the bytes of a product: of the results the last is the library's workspace."""
    results = arrays(one.shape)
    return sum(array.size for array in results if array.dtype != "s8" or len(results) == 1)


def _fusion(module: Module, name: str) -> int:
    body = module.computations[name]
    root = module.root(name)
    outputs = module.operands(root) if root.operation == "tuple" else [root]
    updated = [found for output in outputs if (found := _update(module, output))]
    targets = {target for target, _ in updated}
    written = sum(size for _, size in updated)
    written += sum(size_of(output.shape) for output in outputs if not _update(module, output))
    users: dict[str, list[Instruction]] = defaultdict(list)
    for one in body.values():
        for operand in one.operands:
            users[operand].append(one)
    return written + sum(
        _read(one, list(_uses(users, one.name)), one.name in targets)
        for one in body.values()
        if one.operation == "parameter"
    )


def _update(module: Module, output: Instruction) -> tuple[str, int] | None:
    """Return what an output updates in place, and the bytes that this writes; None: it is new."""
    while output.operation in _SAME_BYTES:
        (output,) = module.operands(output)
    if output.operation not in ("dynamic-update-slice", "scatter"):
        return None
    operands = module.operands(output)
    target = operands[0]
    while target.operation in (*_SAME_BYTES, "convert", "copy"):
        (target,) = module.operands(target)
    if output.operation == "scatter":  # reads what it adds to
        return target.name, 2 * size_of(operands[-1].shape)
    return target.name, size_of(operands[1].shape)


def _uses(users: dict[str, list[Instruction]], name: str) -> Iterator[tuple[Instruction, bool]]:
    """Yield who uses a value, and whether as the first operand."""
    for user in users[name]:
        if user.operation in _SAME_BYTES:
            yield from _uses(users, user.name)
        else:
            yield user, user.operands[0] == name


def _read(parameter: Instruction, uses: list[tuple[Instruction, bool]], updated: bool) -> int:
    whole = size_of(parameter.shape)
    in_place = ("dynamic-update-slice", "scatter") if updated else ()
    if not all(first and user.operation in (*_SLICES, *in_place) for user, first in uses):
        return whole
    slices = [user for user, _ in uses if user.operation in _SLICES]
    return min(whole, sum(min(size_of(user.shape), whole) for user in slices))
