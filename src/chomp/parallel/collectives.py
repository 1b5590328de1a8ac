"""The collectives of a compiled program: what its devices send each other, and how often.

They are read from the program's HLO text, `compiled.as_text()`. jaxlib's objects for it name an
instruction's operation and operands, but neither its shape nor its groups.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

Groups = tuple[tuple[int, ...], ...]

KINDS = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
    "collective-broadcast",
)
# `%name = shape operation(operands), attributes`; a shape has no lower-case word before a bracket.
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%?([\w.-]+) = (.*?) ([a-z][a-z0-9-]*)\((.*)")
_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.-]+) \(.*\{$")
_ARRAY = re.compile(r"(pred|[a-z]+(\d+)[a-z0-9]*)\[([\d,<=]*)\]")
_CALLED = re.compile(
    r"(?:to_apply|calls|body|condition|true_computation|false_computation)=%?([\w.-]+)"
)
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_LISTED = re.compile(r"(?:replica_groups|source_target_pairs)=\{((?:\{[\d,]*\},?\s*)*)\}")
_IOTA = re.compile(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
# mesh['a'=2,'b'=4], device_ids=([4,2]T(1,0)) {'b'}: the axes of a mesh along which groups lie;
# 'b':(2)2 is a part of one, of size 2 behind a factor of 2.
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
    """

    kind: str
    payload: int
    groups: Groups
    trips: tuple[int | None, ...]

    @property
    def size(self) -> int:
        """Devices in a group."""
        return max((len(group) for group in self.groups), default=1)

    @property
    def times(self) -> int:
        """How often it runs in one execution of the program; an unknown loop counts once."""
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


def collectives(hlo: str, devices: int) -> list[Collective]:
    """List the collectives of a program in the order in which it names them.

    Those between devices that are alone in their group send nothing and are left out. Of a
    conditional every branch counts.

    Args:
        hlo: the program's text, as `compiled.as_text()` gives it.
        devices: that the program is for.

    Raises:
        ValueError: the text is none that this can read.
    """
    bodies, entry = _computations(hlo)
    found = _walk(bodies, entry, (), devices)
    return [collective for collective in found if collective.size > 1]


@dataclass(frozen=True)
class _Line:
    name: str
    shape: str
    operation: str
    rest: str
    """Operands and attributes."""


def _computations(hlo: str) -> tuple[dict[str, list[_Line]], str]:
    """Return the lines that matter here by computation, and the name of the first to run."""
    bodies: dict[str, list[_Line]] = {}
    entry, lines = None, []
    for text in hlo.splitlines():
        if header := _COMPUTATION.match(text):
            lines = bodies[header[2]] = []
            entry = header[2] if header[1] else entry
        elif (found := _INSTRUCTION.match(text)) and _matters(found[3]):
            lines.append(_Line(*found.groups()))
    if entry is None:
        raise ValueError("the program's text has no ENTRY computation")
    return bodies, entry


def _matters(operation: str) -> bool:
    return operation in ("while", "call", "conditional", "async-start") or operation.startswith(
        KINDS
    )


def _walk(
    bodies: dict[str, list[_Line]], name: str, trips: tuple[int | None, ...], devices: int
) -> Iterator[Collective]:
    started: dict[str, _Line] = {}
    for line in bodies[name]:
        kind = line.operation.removesuffix("-start").removesuffix("-done")
        if line.operation.endswith("-start") and kind in KINDS:
            started[line.name] = line  # what comes of it is the shape of the other half
        elif kind in KINDS:
            first = line
            if line.operation.endswith("-done"):
                first = started[re.split(r"[\s,)]", line.rest.split("%")[-1])[0]]
            yield _collective(kind, line.shape, first.rest, trips, devices)
        else:
            around = trips
            if line.operation == "while":
                known = _TRIPS.search(line.rest)
                around = (*trips, int(known[1]) if known else None)
            for called in _called(line.rest):
                yield from _walk(bodies, called, around, devices)


def _called(attributes: str) -> Iterator[str]:
    yield from _CALLED.findall(attributes)
    for names in _BRANCHES.findall(attributes):
        yield from (name.strip().lstrip("%") for name in names.split(","))


def _collective(
    kind: str, shape: str, attributes: str, trips: tuple[int | None, ...], devices: int
) -> Collective:
    groups = _groups(attributes, devices)
    payload = sum(_bytes(array) for array in _ARRAY.finditer(shape))
    if kind == "reduce-scatter":  # the shape is that of one device's share of the sum
        payload *= len(groups[0])
    return Collective(kind, payload, groups, trips)


def _bytes(array: re.Match[str]) -> int:
    bits = int(array[2] or 8)  # pred: a byte
    sizes = [int(size.lstrip("<=")) for size in array[3].split(",") if size]
    return math.prod(sizes) * bits // 8


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
    # Each axis, or its parts before, in and behind the group, becomes a dimension.
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
