"""Executions of each instruction in one step, and what the host does for them."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from chomp.hlo.module import Instruction, Module
from chomp.hlo.thunks import Thunk

TURNS = 2
"""Of a loop whose length depends on the data: an assumption, as the compiler can't tell."""

# Work for the device's queues that isn't a kernel, copy or message of its own.
_NO_LAUNCH = {"kAsyncDone", "kWaitForStreams", "kCommandBufferBarrier"}
_AROUND = {"kSequential", "kAsyncStart"}
# Instructions that a device does nothing for.
_NOTHING = {
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "after-all",
    "partition-id",
    "replica-id",
    "opt-barrier",
}


@dataclass
class Execution:
    """One instruction as it runs in a step.

    Attributes:
        instruction: the one that runs.
        times: how often it runs.
        operations: kernels, copies and messages that it makes, in all of these.
        loops: names of the loops around it, the outermost first.
    """

    instruction: Instruction
    times: float = 0
    operations: float = 0
    loops: tuple[str, ...] = ()


@dataclass
class Executions:
    """The instructions that a step runs.

    Attributes:
        by_name: executions by name of the instruction.
        launches: device operations that the host launches one by one.
        graphs: CUDA graphs that it launches.
        nodes: device operations in these.
        waits: how often it waits for the device, to learn how to go on.
        loops: those of the program, wherever they stand.
        unknown_loops: those of them whose length the compiler doesn't know.
        exact: counted in the list of launches; else derived from the instructions.
    """

    by_name: dict[str, Execution] = field(default_factory=dict)
    launches: float = 0
    graphs: float = 0
    nodes: float = 0
    waits: float = 0
    loops: int = 0
    unknown_loops: int = 0
    exact: bool = True

    @property
    def operations(self) -> float:
        """Kernels, copies and messages of a step."""
        return self.launches + self.nodes

    def add(self, one: Instruction, times: float, loops: tuple[str, ...], in_graph: bool) -> None:
        """Count one operation of an instruction."""
        known = self.by_name.setdefault(one.name, Execution(one, times, 0, loops))
        known.operations += times
        if in_graph:
            self.nodes += times
        else:
            self.launches += times
        if "callback" in one.target:
            self.waits += times


def launched(module: Module, thunks: Iterable[Thunk]) -> Executions:
    """Count what the host launches, by XLA's own list.

    Of a condition every branch counts, and of a loop of unknown length `TURNS` turns.
    """
    found = Executions()

    def walk(
        thunks: Iterable[Thunk],
        times: float,
        loops: tuple[str, ...],
        in_graph: bool,
        started: Instruction | None = None,
    ) -> None:
        for thunk in thunks:
            one = module.instructions.get(thunk.instruction) or started
            if thunk.kind == "kCommandBuffer":
                found.graphs += times
                walk(thunk.inner, times, loops, True)
            elif thunk.kind == "kWhile" and one is not None:
                inside = (*loops, one.name)
                if conditions := _enter(found, one, times, in_graph):
                    walk(thunk.sections.get("condition", []), conditions, inside, in_graph)
                turns = TURNS if one.turns is None else one.turns
                walk(thunk.sections.get("body", []), times * turns, inside, in_graph)
            elif thunk.kind == "kConditional":
                found.waits += 0 if in_graph else times
                walk(thunk.inner, times, loops, in_graph)
            elif thunk.kind in _AROUND:
                # What is started aside may have no name of its own in the program's text.
                walk(thunk.inner, times, loops, in_graph, one)
            elif thunk.kind not in _NO_LAUNCH:
                found.add(one or _unknown(thunk), times, loops, in_graph)

    walk(thunks, 1, (), False)
    return found


def derived(module: Module) -> Executions:
    """Count instructions where there is no list of launches: one operation for each."""
    found = Executions(exact=False)

    def walk(name: str, times: float, loops: tuple[str, ...]) -> None:
        for one in module.computations[name].values():
            if one.operation == "while":
                inside = (*loops, one.name)
                if conditions := _enter(found, one, times, False):
                    walk(one.attribute("condition"), conditions, inside)
                turns = TURNS if one.turns is None else one.turns
                walk(one.attribute("body"), times * turns, inside)
            elif one.operation in ("call", "conditional", "async-start"):
                found.waits += times if one.operation == "conditional" else 0
                for called in one.called:
                    walk(called, times, loops)
            elif one.operation not in _NOTHING and not one.operation.endswith("-done"):
                found.add(one, times, loops, False)

    walk(module.entry, 1, ())
    return found


def _enter(found: Executions, loop: Instruction, times: float, in_graph: bool) -> float:
    """Count a loop; return how often its condition runs: never, where the length is known."""
    found.loops += 1
    if loop.turns is not None:
        return 0
    found.unknown_loops += 1
    if not in_graph:
        found.waits += times * (TURNS + 1)
    return times * (TURNS + 1)


def _unknown(thunk: Thunk) -> Instruction:
    return Instruction(thunk.instruction or thunk.kind, "", thunk.kind, (), "", False, "")
