"""The figures of a program: counted, and estimated for the device that it is for."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from chomp.hlo.collectives import Collective, collectives
from chomp.hlo.compiled import Program
from chomp.hlo.products import Product, products
from chomp.hlo.roofline import WAIT, Bound, Cluster, Cost, cost
from chomp.hlo.source import Place, Sources

TOP = 40
"""Source lines, and float32 products, that are listed."""


@dataclass(frozen=True)
class Row:
    """The cost of a part of the program, or of a line of its source, in a step.

    Attributes:
        name: that of the part or line.
        operations: kernels, copies and messages.
        moved: bytes.
        flops: those of all products and kernels.
        seconds: estimated.
        bounds: seconds by what bounds them.
    """

    name: str
    operations: float
    moved: float
    flops: float
    seconds: float
    bounds: dict[Bound, float]

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {
            "operations": round(self.operations),
            "bytes_moved": round(self.moved),
            "flops": self.flops,
            "seconds": self.seconds,
            "bounds": dict(self.bounds),
        }


@dataclass(frozen=True)
class Figures:
    """The work of a step of a program, and its estimated time.

    Attributes:
        program: the program.
        costs: costs of its instructions, with their sources.
        messages: its collectives.
        float64: names of instructions that compute in it.
    """

    program: Program
    costs: tuple[tuple[Cost, Place], ...]
    messages: tuple[Collective, ...]
    float64: tuple[str, ...]

    @property
    def waits(self) -> float:
        """Number of times that the host waits for the device."""
        return self.program.executions.waits

    @property
    def seconds(self) -> float:
        """Of a step, one operation after the other, and with what the waits cost."""
        return sum(cost.seconds for cost, _ in self.costs) + self.waits * WAIT

    @property
    def communication(self) -> float:
        """Of these, the seconds of collectives."""
        return sum(cost.seconds for cost, _ in self.costs if cost.sent)

    @property
    def moved(self) -> float:
        """Bytes between the device's memory and its cores."""
        return sum(cost.moved for cost, _ in self.costs)

    def flops(self, precision: str) -> float:
        """Return the operations of products in a precision, or of kernels."""
        return sum(cost.flops.get(precision, 0) for cost, _ in self.costs)  # type: ignore[call-overload]

    @property
    def bounds(self) -> dict[Bound, float]:
        """Seconds of the estimate by what takes them."""
        found: dict[Bound, float] = defaultdict(float)
        for one, _ in self.costs:
            found[one.bound] += one.seconds
        found["host waits"] += self.waits * WAIT
        return found

    @property
    def parts(self) -> list[Row]:
        """By part of the model, the longest first."""
        return self._rows(lambda place: place.part)

    @property
    def lines(self) -> list[Row]:
        """By source line, the longest first."""
        return self._rows(lambda place: place.line or "no source: made by the compiler")

    def _rows(self, name: Callable[[Place], str]) -> list[Row]:
        grouped: dict[str, list[Cost]] = {}
        for one, place in self.costs:
            grouped.setdefault(name(place), []).append(one)
        rows = (_row(title, group) for title, group in grouped.items())
        return sorted(rows, key=lambda row: -row.seconds)

    @property
    def float32_products(self) -> list[tuple[Product, Place, float]]:
        """Products whose factors aren't half as wide: with their places, and FLOPs of a step."""
        found = [
            (product, place, product.flops * one.execution.times)
            for one, place in self.costs
            for product in products(self.program.module, one.execution.instruction)
            if product.precision != "bf16"
        ]
        return sorted(found, key=lambda item: -item[2])

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        runs, memory = self.program.executions, self.program.memory
        return {
            "operations": round(runs.operations),
            "launches": round(runs.launches),
            "graphs": round(runs.graphs),
            "graph_operations": round(runs.nodes),
            "host_waits": round(runs.waits),
            "loops": runs.loops,
            "unknown_length_loops": runs.unknown_loops,
            "operations_exact": runs.exact,
            "temp_bytes": memory.temp_size_in_bytes,
            "argument_bytes": memory.argument_size_in_bytes,
            "peak_bytes": memory.peak_memory_in_bytes,
            "bytes_moved": round(self.moved),
            "flops_bf16": self.flops("bf16"),
            "flops_tf32": self.flops("tf32"),
            "flops_f32": self.flops("f32"),
            "flops_kernels": self.flops("kernel"),
            "float_atomic_kernels": self.program.float_atomics,
            "float64_instructions": list(self.float64),
            "sent_bytes": sum(one.times * one.sent for one in self.messages),
            "communication_seconds": self.communication,
            "estimated_seconds": self.seconds,
            "bounds": dict(self.bounds),
            "parts": {row.name: row.to_json() for row in self.parts},
            "lines": {row.name: row.to_json() for row in self.lines[:TOP]},
            "float32_products": [
                {
                    "instruction": product.instruction.name,
                    "precision": product.precision,
                    "shapes": [list(shape) for shape in product.shapes],
                    "flops": flops,
                    "part": place.part,
                    "line": place.line,
                }
                for product, place, flops in self.float32_products[:TOP]
            ],
            "collectives": [
                {
                    "kind": one.kind,
                    "dtype": one.dtype,
                    "group_size": one.size,
                    "times": one.times,
                    "in_loop": bool(one.trips),
                    "payload_bytes": one.payload,
                    "sent_bytes": one.sent,
                }
                for one in self.messages
            ],
            "compile_seconds": self.program.seconds,
        }


def figures(program: Program, cluster: Cluster, devices: int) -> Figures:
    """Count a program, and estimate its time.

    Args:
        program: compiled for so many devices of the cluster.
        cluster: the one that would run it.
        devices: how many.
    """
    messages = tuple(collectives(program.module, devices))
    starting = {message.instruction: message for message in messages}
    executions = list(program.executions.by_name.values())
    sources = Sources(program.module, executions)
    costs = []
    for execution in executions:
        if execution.times:
            message = starting.get(execution.instruction.name)
            costs.append((cost(program, execution, cluster, message), sources.place(execution)))
    doubles = [
        one.name
        for one in program.module.instructions.values()
        if "f64[" in one.shape or "c128[" in one.shape
    ]
    return Figures(program, tuple(costs), messages, tuple(doubles))


def _row(name: str, costs: Sequence[Cost]) -> Row:
    bounds: dict[Bound, float] = defaultdict(float)
    for one in costs:
        bounds[one.bound] += one.seconds
    return Row(
        name,
        sum(one.execution.operations for one in costs),
        sum(one.moved for one in costs),
        sum(sum(one.flops.values()) for one in costs),
        sum(one.seconds for one in costs),
        bounds,
    )
