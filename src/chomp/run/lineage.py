"""Runs that began from others: where their steps were trained, and which began from them."""

import os
from pathlib import Path
from typing import Any, NamedTuple

from chomp.errors import ResumeError
from chomp.run.record import Parent, RunRecord, read_record
from chomp.run.run_folder import RunFolder
from chomp.run_files import UNFINISHED_BRANCH

MOST_GENERATIONS = 100
"""Of branches of branches, as far as they are shown; JSON and Python don't nest without end."""


class Descendant(NamedTuple):
    """A run that began from another one, and those that began from it."""

    folder: str
    step: int
    """That of the checkpoint which it began from."""
    kind: str
    children: "list[Descendant]"

    def as_values(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return self._asdict() | {"children": [child.as_values() for child in self.children]}


class Ancestor(NamedTuple):
    """A run that another one began from."""

    folder: str
    step: int
    """That of the checkpoint that was taken."""
    kind: str
    there: bool
    """Whether it is there now."""

    def as_values(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return self._asdict()


def ancestors(folder: Path) -> list[Ancestor]:
    """Return the run that the one in `folder` began from, the one that this began from, and so on.

    The list ends with the first that isn't there any more.
    """
    found: list[Ancestor] = []
    record = _record(folder)
    while record and (parent := record.parent) and len(found) < MOST_GENERATIONS:
        record = _record(Path(parent.folder))
        there = record is not None and record.run == parent.run
        found.append(Ancestor(parent.folder, parent.step, parent.kind, there))
        record = record if there else None
    return found


def trained_by(folder: RunFolder, step: int) -> RunFolder:
    """Return the run that trained a step: the one in `folder`, or one that it is a branch of.

    Raises:
        ResumeError: that run isn't there any more, or the records of these runs make no sense.
    """
    record, passed = _record(folder.path), set[str]()
    while (
        record and record.parent and record.parent.kind == "branch" and step <= record.parent.step
    ):
        parent = record.parent
        if record.run in passed:
            raise ResumeError(
                f"step {step}: by their records, {folder.path} and {parent.folder} are branches of "
                f"each other; put the right {folder.record.name} back"
            )
        passed.add(record.run)
        record = _record(Path(parent.folder))
        if record is None or record.run != parent.run:
            raise ResumeError(
                f"step {step} was trained by the run {parent.run} in {parent.folder}, before the "
                "branch; that run isn't there now: put it back"
            )
        folder = RunFolder(Path(parent.folder))
        folder.require_run()
    return folder


def descendants(folder: Path, run: str) -> list[Descendant]:
    """Find the runs beside a run's folder that began from it, or from one of these, and so on."""
    found: dict[str, list[tuple[Path, RunRecord, Parent]]] = {}
    try:
        places = sorted(folder.resolve().parent.iterdir())
    except OSError:
        return []
    for path in places:
        record = None if path.name.startswith(UNFINISHED_BRANCH) else _record(path)
        if record and record.parent:
            found.setdefault(record.parent.run, []).append((path, record, record.parent))

    def below(parent: str, generation: int) -> list[Descendant]:
        if generation > MOST_GENERATIONS:
            return []
        # Each once: a copy of a folder is by its record the same run, and has the same branches.
        return [
            Descendant(str(path), origin.step, origin.kind, below(record.run, generation + 1))
            for path, record, origin in found.pop(parent, ())
            if record.run != run
        ]

    return below(run, 1)


def _record(folder: Path) -> RunRecord | None:
    """Return a run's record; None if there is none, or what isn't one, be it a pipe."""
    path = folder / "run.json"
    try:
        return read_record(path) if os.path.isfile(path) else None
    except ValueError:
        return None
