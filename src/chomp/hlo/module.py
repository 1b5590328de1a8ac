"""A compiled program's text: its computations, instructions and source frames.

The text is `compiled.as_text()`, optimized HLO. jaxlib's objects for it name an instruction's
operation and operands, but neither its shape nor its attributes.
"""

import functools
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

# `  ROOT %name = shape operation(operands), attributes`
_INSTRUCTION = re.compile(r"\s+(ROOT )?%?([\w.-]+) = (.*)$")
_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.-]+) \(.*\{$")
_OPERATION = re.compile(r"\s*([a-z][a-z0-9-]*)\(")
_NAME = re.compile(r"%([\w.-]+)")
_ARRAY = re.compile(r"\b(pred|[a-z]+(\d+)[a-z0-9]*)\[([\d,<=]*)\]")
_CALLED = re.compile(
    r"\b(?:to_apply|calls|body|condition|true_computation|false_computation)=%?([\w.-]+)"
)
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TURNS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_FRAME = re.compile(r"stack_frame_id=(\d+)")
_NUMBER = re.compile(r"(\w+)=(\d+)")
_TABLES = ("FileNames", "FunctionNames", "FileLocations", "StackFrames")
_ROW = re.compile(r"(\d+) (.*)$")


@dataclass(frozen=True)
class ArrayShape:
    """One array of a shape, which may be a tuple of several."""

    dtype: str
    dims: tuple[int, ...]
    bits: int

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.dims)

    @property
    def size(self) -> int:
        """Bytes."""
        return self.elements * self.bits // 8


@functools.lru_cache(maxsize=1 << 16)
def arrays(shape: str) -> tuple[ArrayShape, ...]:
    """Return the arrays that a shape, as HLO writes it, consists of."""
    found = []
    for dtype, bits, dims in _ARRAY.findall(shape):
        sizes = tuple(int(size.lstrip("<=")) for size in dims.split(",") if size)
        found.append(ArrayShape(dtype, sizes, int(bits or 8)))  # pred: a byte
    return tuple(found)


def size_of(shape: str) -> int:
    """Return the bytes of a shape's arrays together."""
    return sum(array.size for array in arrays(shape))


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction.

    Attributes:
        name: its name, unique in the program.
        shape: shape of its result, as HLO writes it.
        operation: such as `fusion`.
        operands: their names.
        attributes: the text after the operands.
        is_root: whether its result is that of its computation.
        computation: the one that it belongs to.
    """

    name: str
    shape: str
    operation: str
    operands: tuple[str, ...]
    attributes: str
    is_root: bool
    computation: str

    @property
    def called(self) -> tuple[str, ...]:
        """Names of the computations that it calls; of a loop the body first."""
        names = _CALLED.findall(self.attributes)
        for branches in _BRANCHES.findall(self.attributes):
            names += [name.strip().lstrip("%") for name in branches.split(",")]
        if self.operation == "while":
            return self.attribute("body"), self.attribute("condition")
        return tuple(names)

    @property
    def turns(self) -> int | None:
        """Times that a loop's body runs; None: the compiler can't tell."""
        known = _TURNS.search(self.attributes)
        return int(known[1]) if known else None

    @property
    def target(self) -> str:
        """Of a custom call: what is called; else nothing."""
        found = re.search(r'custom_call_target="([^"]*)"', self.attributes)
        return found[1] if found else ""

    def attribute(self, name: str) -> str:
        """Return the name that an attribute has as its value.

        Raises:
            ValueError: there is no such attribute.
        """
        found = re.search(rf"\b{name}=%?([\w.-]+)", self.attributes)
        if found is None:
            raise ValueError(f"{self.operation} {self.name} has no attribute {name}")
        return found[1]

    @property
    def frame(self) -> int | None:
        """Number of the source frame that made it."""
        found = _FRAME.search(self.attributes)
        return int(found[1]) if found else None


@dataclass(frozen=True)
class Frame:
    """A line of Python that was running when an instruction was traced."""

    file: str
    function: str
    line: int


@dataclass
class Module:
    """A program.

    Attributes:
        computations: their instructions by name, in the order in which they run.
        entry: name of the computation that runs first.
    """

    computations: dict[str, dict[str, Instruction]] = field(default_factory=dict)
    entry: str = ""
    _tables: dict[str, dict[int, str]] = field(default_factory=dict)
    _known_frames: dict[int, tuple["Frame", ...]] = field(default_factory=dict)

    @functools.cached_property
    def instructions(self) -> dict[str, Instruction]:
        """All instructions by name."""
        return {name: one for body in self.computations.values() for name, one in body.items()}

    def entry_body(self) -> dict[str, Instruction]:
        """Return the instructions that run first."""
        return self.computations[self.entry]

    def operands(self, instruction: Instruction) -> list[Instruction]:
        """Return an instruction's operands."""
        body = self.computations[instruction.computation]
        return [body[name] for name in instruction.operands if name in body]

    def root(self, computation: str) -> Instruction:
        """Return the instruction whose result is the computation's."""
        return next(one for one in self.computations[computation].values() if one.is_root)

    def frames(self, instruction: Instruction) -> tuple[Frame, ...]:
        """Return the source frames of an instruction, the innermost first."""
        number = instruction.frame
        if number is None:
            return ()
        if number not in self._known_frames:
            self._known_frames[number] = tuple(self._frames(number))
        return self._known_frames[number]

    def _frames(self, number: int) -> Iterator[Frame]:
        last = 0
        while number != last and (text := self._tables["StackFrames"].get(number)):
            row = _numbers(text)
            place = _numbers(self._tables["FileLocations"][row["file_location_id"]])
            file = self._tables["FileNames"][place["file_name_id"]]
            function = self._tables["FunctionNames"][place["function_name_id"]]
            yield Frame(file.strip('"'), function.strip('"'), place["line"])
            last, number = number, row.get("parent_frame_id", number)


def _numbers(text: str) -> dict[str, int]:
    return {name: int(number) for name, number in _NUMBER.findall(text)}


def parse(text: str) -> Module:
    """Read a program.

    Raises:
        ValueError: the text is none that this can read.
    """
    module = Module(_tables={name: {} for name in _TABLES})
    table: dict[int, str] | None = None
    computation, body = "", {}
    for line in text.split("\n"):
        if header := _COMPUTATION.match(line):
            table, computation = None, header[2]
            body = module.computations[computation] = {}
            module.entry = computation if header[1] else module.entry
        elif line in _TABLES:
            table = module._tables[line]
        elif table is not None:
            if row := _ROW.match(line):
                table[int(row[1])] = row[2]
        elif found := _INSTRUCTION.match(line):
            body[found[2]] = _instruction(found[2], found[3], bool(found[1]), computation)
    if not module.entry:
        raise ValueError("the program's text has no ENTRY computation")
    return module


def _instruction(name: str, text: str, is_root: bool, computation: str) -> Instruction:
    end = _closing(text, 0) if text.startswith("(") else text.index(" ")
    operation = _OPERATION.match(text, end)
    if operation is None:
        raise ValueError(f"no operation in: {name} = {text[:200]}")
    last = _closing(text, operation.end() - 1)
    operands = tuple(_NAME.findall(text, operation.end(), last))
    if operation[1] == "constant":
        operands = ()
    return Instruction(name, text[:end], operation[1], operands, text[last:], is_root, computation)


def _closing(text: str, start: int) -> int:
    """Return the position after the bracket that closes the one at `start`."""
    depth = 0
    for found in re.compile(r"[()]").finditer(text, start):
        depth += 1 if found[0] == "(" else -1
        if depth == 0:
            return found.end()
    raise ValueError(f"a bracket isn't closed: {text[start : start + 200]}")


def bodies_of(module: Module, name: str) -> Iterator[Instruction]:
    """Yield the instructions of a computation and of those that it fuses or calls."""
    for one in module.computations[name].values():
        yield one
        if one.operation in ("fusion", "call"):
            for called in one.called:
                yield from bodies_of(module, called)
