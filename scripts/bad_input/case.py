"""One wrong input: what is prepared, which command gets it, and what must come of it."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Prepare = Callable[[Path, ExitStack], object]

TRAIN = "train config.yaml --run-dir new"
RESUME = "train --run-dir run --resume latest"
SHOW = "config show config.yaml"


@dataclass(frozen=True)
class Case:
    """A wrong input.

    Attributes:
        name: what is wrong, as the table says it (Markdown).
        args: of the program, split at blanks. It runs in a folder of its own with `config.yaml`,
            a working configuration, and `run`, the folder of a run with checkpoints.
        says: texts that its standard error must hold.
        change: dotted keys to set in `config.yaml`; or the file's whole content.
        prepare: what else to do in the folder; what it opens for the time of the case goes on the
            stack.
        words: further arguments, as they are.
        code: exit code.
        lines: of standard error: one for each problem.
        env: of the program; None: without that variable.
        stdin: of the program.
        alone: needs a process of its own.
        foreign: the message is another library's, which ends the process itself.
        changes: files that may be rewritten.
        waits: what chomp does wrong as yet; empty: nothing.
    """

    name: str
    args: str = TRAIN
    says: tuple[str, ...] | str = ()
    change: Mapping[str, Any] | str | bytes = field(default_factory=dict)
    prepare: Prepare | None = None
    words: tuple[str, ...] = ()
    code: int = 2
    lines: int = 1
    env: Mapping[str, str | None] = field(default_factory=dict)
    stdin: str | None = None
    alone: bool = False
    foreign: bool = False
    changes: tuple[str, ...] = ()
    waits: str = ""


def files(**contents: str | bytes) -> Prepare:
    """Write files; `__` in a name stands for a dot, `_in_` for a folder's end."""

    def prepare(place: Path, _: ExitStack) -> None:
        for name, content in contents.items():
            put(place / name.replace("_in_", "/").replace("__", "."), content)

    return prepare


def put(path: Path, content: str | bytes) -> None:
    """Write a file, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
