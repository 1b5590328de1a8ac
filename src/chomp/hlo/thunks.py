"""Launches of a GPU program's host: XLA's list of thunks, from the compiler's dump."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

# `  012: kWhile  [prev=.. | next=..] text`; under it `condition:`, `body:` or `branch_0:`.
_THUNK = re.compile(r"(\s*)(\d+): (k\w+)")
_SECTION = re.compile(r"(\s*)(condition|body|branch_\d+):$")
_NAMED = re.compile(r'profile_annotation: "([^"]*)"\s+thunk_id: (\d+)')


@dataclass
class Thunk:
    """One thing that the host does: a launch, or a loop, condition or graph of others.

    Attributes:
        kind: XLA's name of it, such as `kCustomKernel`.
        instruction: name of the HLO instruction that it was made of; empty: of none.
        sections: the thunks in it; of a loop `condition` and `body`, of others one without a name.
    """

    kind: str
    instruction: str
    sections: dict[str, list["Thunk"]] = field(default_factory=dict)

    @property
    def inner(self) -> Iterator["Thunk"]:
        """Thunks of all sections."""
        for thunks in self.sections.values():
            yield from thunks


def parse_thunks(sequence: str, metadata: str) -> list[Thunk]:
    """Read a list of thunks.

    Args:
        sequence: the dump `thunk_sequence_after_thunk_passes`, or `thunk_sequence`.
        metadata: the dump `thunk_metadata`, which has their instructions.
    """
    names = {int(number): name for name, number in _NAMED.findall(metadata)}
    top = Thunk("kSequential", "")
    # What encloses the next line: its indentation, and the section that lines below go to.
    around: list[tuple[int, Thunk, str]] = [(-1, top, "")]
    for line in sequence.splitlines():
        if found := _SECTION.match(line):
            # The first one stands right under its loop, at any indentation.
            indent = around[-1][0] if found[2] == "condition" else len(found[1]) - 1
            while around[-1][0] > indent:
                around.pop()
            around[-1] = (*around[-1][:2], found[2])
        elif found := _THUNK.match(line):
            indent = len(found[1])
            while around[-1][0] >= indent:
                around.pop()
            _, parent, section = around[-1]
            thunk = Thunk(found[3], names.get(int(found[2]), ""))
            parent.sections.setdefault(section, []).append(thunk)
            around.append((indent, thunk, ""))
    return list(top.inner)


def read_thunks(dump: Path) -> list[Thunk] | None:
    """Read the thunks that the compiler has dumped into a folder; None: it hasn't.

    The list after the passes over it, which make graphs, is only there if they changed something.
    """
    for name in ("thunk_sequence_after_thunk_passes", "thunk_sequence"):
        for path in sorted(dump.glob(f"*.{name}.txt")):
            metadata = path.with_name(path.name.replace(name, "thunk_metadata"))
            if metadata.exists():
                return parse_thunks(path.read_text("utf-8"), metadata.read_text("utf-8"))
    return None
