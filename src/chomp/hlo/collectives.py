"""The collectives of a compiled program: what its devices send each other, and how often."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from chomp.hlo.module import Instruction, Module, arrays, parse, size_of

Groups = tuple[tuple[int, ...], ...]

KINDS = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
    "collective-broadcast",
)
_LISTED = re.compile(r"(?:replica_groups|source_target_pairs)=\{((?:\{[\d,]*\},?\s*)*)\}")
_IOTA = re.compile(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
# mesh['a'=2,'b'=4], device_ids=([4,2]T(1,0)) {'b'}: the axes of a mesh along which groups lie;
# 'b':(2)2 is a part of one, of size 2 after a factor of 2.
_MESH = re.compile(
    r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\((?:\[([\d,]+)\]T\(([\d,]+)\)|([^)]*))\))?"
    r" \{([^}]*)\}"
)
_AXIS = re.compile(r"'?([\w.-]+)'?(?::\((\d+)\)(\d+))?$")


@dataclass(frozen=True)
class Collective:
    """One collective of a program.

    Attributes:
        kind: one of `KINDS`.
        payload: bytes of the whole array: of what an all-gather gives, of what a reduce-scatter,
            all-reduce or all-to-all takes on each device, of what a permute or broadcast sends.
        groups: the devices that take part together, by their place in the program's order; of a
            permute its pairs.
        trips: how often each loop around it runs, the outermost first; None: the compiler can't
            tell.
        dtype: type of what is sent; several have `+` between them.
        instruction: name of the one that it is, or begins with.
    """

    kind: str
    payload: int
    groups: Groups
    trips: tuple[int | None, ...]
    dtype: str = field(default="", compare=False)
    instruction: str = field(default="", compare=False)

    @property
    def size(self) -> int:
        """Devices in a group."""
        return max((len(group) for group in self.groups), default=1)

    @property
    def times(self) -> int:
        """Times that it runs in one execution of the program; an unknown loop counts once."""
        return math.prod(1 if count is None else count for count in self.trips)

    @property
    def sent(self) -> int:
        """Bytes that a device sends each time, and receives, by the ring algorithms.

        Of n devices in a group, with P the payload: (n - 1) / n * P for all-gather,
        reduce-scatter and all-to-all, twice that for all-reduce, P for permute and broadcast. No
        algorithm that leaves the sums to the devices needs less (Patarasu and Yuan, 2009).
        """
        if self.kind in ("collective-permute", "collective-broadcast"):
            return self.payload
        passes = 2 if self.kind == "all-reduce" else 1
        return passes * self.payload * (self.size - 1) // self.size


def collectives(hlo: str | Module, devices: int) -> list[Collective]:
    """List the collectives of a program in the order in which it names them.

    Those between devices that are alone in their group send nothing and are left out. Of a
    conditional every branch counts.

    Args:
        hlo: the program, or its text.
        devices: number of them that the program is for.

    Raises:
        ValueError: the text is none that this can read.
    """
    module = parse(hlo) if isinstance(hlo, str) else hlo
    found = _walk(module, module.entry, (), devices)
    return [collective for collective in found if collective.size > 1]


def kind_of(instruction: Instruction) -> str | None:
    """Return which of `KINDS` an instruction is, or is half of; None: it is none."""
    kind = instruction.operation.removesuffix("-start").removesuffix("-done")
    return kind if kind in KINDS else None


def _walk(
    module: Module, name: str, trips: tuple[int | None, ...], devices: int
) -> Iterator[Collective]:
    for one in module.computations[name].values():
        kind = kind_of(one)
        if kind and one.operation.endswith("-done"):
            (first,) = module.operands(one)
            yield _collective(kind, one.shape, first, trips, devices)
        elif kind and not one.operation.endswith("-start"):
            # What comes of a half that starts is the shape of the other half.
            yield _collective(kind, one.shape, one, trips, devices)
        elif one.operation in ("while", "call", "conditional", "async-start"):
            around = (*trips, one.turns) if one.operation == "while" else trips
            for called in one.called:
                yield from _walk(module, called, around, devices)


def _collective(
    kind: str, shape: str, first: Instruction, trips: tuple[int | None, ...], devices: int
) -> Collective:
    groups = _groups(first.attributes, devices)
    payload = size_of(shape)
    if kind == "reduce-scatter":  # the shape is that of one device's share of the sum
        payload *= len(groups[0])
    dtype = "+".join(sorted({array.dtype for array in arrays(shape)}))
    return Collective(kind, payload, groups, trips, dtype, first.name)


def _groups(attributes: str, devices: int) -> Groups:
    """Return the groups; an empty list of them is one group of all devices."""
    if found := _IOTA.search(attributes):
        shape, counted, order = found.groups()
        numbers = _turned(devices, counted, order).reshape(_sizes(shape))
        return tuple(tuple(group) for group in numbers.tolist())
    if found := _MESH.search(attributes):
        return _mesh_groups(found, devices)
    listed = _LISTED.search(attributes)
    if listed is None:
        raise ValueError(f"no groups of devices in: {attributes}")
    groups = re.findall(r"\{([\d,]*)\}", listed[1])
    if not any(groups):
        return (tuple(range(devices)),)
    return tuple(tuple(_sizes(group)) for group in groups)


def _mesh_groups(found: re.Match[str], devices: int) -> Groups:
    axes, counted, order, ids, along = found.groups()
    if ids is not None:
        numbers = np.array([int(number) for number in re.findall(r"\d+", ids)])
    else:
        numbers = _turned(devices, counted or str(devices), order)
    sizes = {name.strip("'"): int(size) for name, size in re.findall(r"([^,]+)=(\d+)", axes)}
    # Each axis, or its parts before, in and after the group, becomes a dimension.
    parts = {name: [1, size, 1] for name, size in sizes.items()}
    chosen = []
    for text in along.split(","):
        axis = _AXIS.match(text.strip())
        if axis is None:
            raise ValueError(f"no axis of a mesh: {text}")
        name, before, size = axis.groups()
        if size is not None:
            whole = sizes[name]
            parts[name] = [int(before), int(size), whole // int(before) // int(size)]
        chosen.append(3 * list(sizes).index(name) + 1)
    numbers = numbers.reshape([size for three in parts.values() for size in three])
    numbers = np.moveaxis(numbers, chosen, range(-len(chosen), 0))
    members = math.prod(numbers.shape[-len(chosen) :])
    return tuple(tuple(group) for group in numbers.reshape(-1, members).tolist())


def _turned(devices: int, shape: str, order: str | None) -> np.ndarray:
    """Return the devices' numbers counted in one shape, with its dimensions in another order."""
    numbers = np.arange(devices).reshape(_sizes(shape))
    return numbers if order is None else numbers.transpose(_sizes(order))


def _sizes(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]
