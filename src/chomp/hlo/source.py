"""The line of Python and the part of the model that an instruction comes from."""

import itertools
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from chomp.hlo.collectives import kind_of
from chomp.hlo.executions import Execution
from chomp.hlo.module import Frame, Instruction, Module, bodies_of

Part = Literal[
    "embedding",
    "norm",
    "moving average",
    "attention",
    "projections",
    "feed-forward",
    "loss",
    "gradient accumulation",
    "optimizer",
    "collectives",
    "other",
]
PARTS: tuple[Part, ...] = get_args(Part)

# The first that is found in `file:function` of a frame. The innermost frame of chomp that one fits
# decides, and else the library's and the optimizer's.
_RULES: tuple[tuple[str, Part], ...] = (
    (r"optim/|optax/|matrices\.py", "optimizer"),
    (r"ema|EMA", "moving average"),
    (r"norm|Norm", "norm"),
    (r"cross_entropy|head_loss|compute_loss", "loss"),
    (r"FeedForward|FFN|Ffn|SwiGLU", "feed-forward"),
    (r"_queries_and_keys|_matmul_3d|linear_3d|_project|accelerator/linear", "projections"),
    (r"ttention|rotary", "attention"),
    (r"Embedding|embed", "embedding"),
)
# If none is: all of the model lies within these.
_AROUND_MODEL: tuple[tuple[str, Part], ...] = (
    (r"trainer/step\.py:_accumulate", "gradient accumulation"),
    (r"trainer/step\.py:", "optimizer"),
)
_DECIDING = ("chomp", "megalodon_jax", "optax")
_OPERATION = re.compile(r'op_name="([^"]*)"')
_LOOKUP = re.compile(r"gather|scatter|take")
_PACKAGES = ("megalodon_jax", "optax", "equinox", "jax")
_CHOMP = Path(__file__).parents[1].as_posix() + "/"
_SAME = ("copy", "bitcast", "get-tuple-element", "transpose", "convert", "reshape", "copy-start")
_AROUND = ("parameter", "while", "tuple")
"""Instructions that take the source of the loop around them."""
_MOST = 0.8
"""Share of a loop's instructions that must be of one part for the others to be of it as well."""


@dataclass(frozen=True)
class Place:
    """The source of an instruction.

    Attributes:
        part: the part of the training step.
        line: file, line and function; empty: unknown.
    """

    part: Part
    line: str


class Sources:
    """Finds the places of a program's instructions.

    The compiler's own copies have no source, and loops of a backward pass only that of what they
    are the backward pass of: such instructions get the place of the loop around them, if nearly all
    in it is of one part, else that of what they copy.
    """

    def __init__(self, module: Module, executions: Iterable[Execution]):
        self._module = module
        self._own: dict[str, Place | None] = {}
        self._loops = dict(self._of_loops(executions))

    def place(self, execution: Execution) -> Place:
        """Return where an instruction comes from."""
        one = execution.instruction
        own = self._own_place(one)
        if own and own.part != "other":
            return own
        for loop in reversed(execution.loops):
            if loop in self._loops:
                around = self._loops[loop]
                return Place(around.part, own.line if own and own.line else around.line)
        return own or self._copied(one) or Place("other", "")

    def _of_loops(self, executions: Iterable[Execution]) -> Iterable[tuple[str, Place]]:
        places: dict[str, Counter[Place]] = {}
        for execution in executions:
            place = self._own_place(execution.instruction)
            if place and place.part != "other":
                for loop in execution.loops:
                    places.setdefault(loop, Counter())[place] += 1
        for loop, found in places.items():
            parts = Counter[Part]()
            for place, count in found.items():
                parts[place.part] += count
            part, count = parts.most_common(1)[0]
            if count >= _MOST * parts.total():
                yield loop, next(place for place, _ in found.most_common() if place.part == part)

    def _own_place(self, one: Instruction) -> Place | None:
        if one.name not in self._own:
            self._own[one.name] = self._find(one)
        return self._own[one.name]

    def _find(self, one: Instruction) -> Place | None:
        frames = self._module.frames(one)
        if not frames and one.operation == "fusion":
            inner = [self._module.frames(x) for x in bodies_of(self._module, one.called[0])]
            frames = next((found for found in reversed(inner) if found), ())
        if kind_of(one):
            return Place("collectives", _line(frames))
        if not frames:
            return None
        named = _OPERATION.search(one.attributes)
        return Place(_part(frames, named[1] if named else ""), _line(frames))

    def _copied(self, one: Instruction, steps: int = 6) -> Place | None:
        """Return the place of what an instruction without one has as its operand."""
        if one.computation not in self._module.computations:
            return None
        for operand in self._module.operands(one)[:1]:
            if operand.operation in _SAME:
                return self._copied(operand, steps - 1) if steps else None
            if operand.operation not in _AROUND:
                return self._own_place(operand)
        return None


def _part(frames: Iterable[Frame], operation: str) -> Part:
    known = [(*_package(frame.file), frame.function) for frame in frames]
    texts = {
        wanted: [f"{path}:{function}" for package, path, function in known if package == wanted]
        for wanted in _DECIDING
    }
    for rules in (_RULES, _AROUND_MODEL):
        for text in itertools.chain.from_iterable(texts.values()):
            for pattern, part in rules:
                if re.search(pattern, text):
                    return part
        if rules is _RULES and _is_lookup(texts["chomp"], operation):
            return "embedding"
    return "other"


def _is_lookup(frames: list[str], operation: str) -> bool:
    """Say whether an operation looks tokens up, or sums the gradients of what was looked up."""
    return bool(frames) and frames[0].endswith(":hidden_states") and bool(_LOOKUP.search(operation))


def _line(frames: Iterable[Frame]) -> str:
    known = [(*_package(frame.file), frame) for frame in frames]
    for wanted in ("chomp", *_PACKAGES, ""):
        for package, path, frame in known:
            if package == wanted:
                return f"{path}:{frame.line} {frame.function}"
    return ""


def _package(file: str) -> tuple[str, str]:
    """Return the package that a file belongs to, and its path in it."""
    if file.startswith(_CHOMP):
        return "chomp", file.removeprefix(_CHOMP)
    parts = Path(file).parts
    for package in _PACKAGES:
        if package in parts:
            start = len(parts) - 1 - parts[::-1].index(package)
            return package, "/".join(parts[start:])
    return "", Path(file).name
