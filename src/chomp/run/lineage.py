"""Runs that began from others: where their steps were trained, and which began from them."""

from pathlib import Path
from typing import Any, NamedTuple

from chomp.errors import ResumeError
from chomp.run.record import Parent, RunRecord, read_record
from chomp.run.run_folder import RunFolder


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


def trained_by(folder: RunFolder, step: int) -> RunFolder:
    """Return the run that trained a step: the one in `folder`, or one that it is a branch of.

    Raises:
        ResumeError: that run isn't there any more.
    """
    record = _record(folder.path)
    while (
        record and record.parent and record.parent.kind == "branch" and step <= record.parent.step
    ):
        parent = record.parent
        record = _record(Path(parent.folder))
        if record is None or record.run != parent.run:
            raise ResumeError(
                f"step {step} was trained by the run {parent.run} in {parent.folder}, before the "
                "branch; that run isn't there now: put it back"
            )
        folder = RunFolder(Path(parent.folder))
    return folder


def descendants(folder: Path, run: str) -> list[Descendant]:
    """Find the runs beside a run's folder that began from it, or from one of these, and so on."""
    found: dict[str, list[tuple[Path, RunRecord, Parent]]] = {}
    try:
        places = sorted(folder.resolve().parent.iterdir())
    except OSError:
        return []
    for path in places:
        record = _record(path) if (path / "run.json").is_file() else None
        if record and record.parent:
            found.setdefault(record.parent.run, []).append((path, record, record.parent))

    def below(parent: str, seen: frozenset[str]) -> list[Descendant]:
        return [
            Descendant(str(path), origin.step, origin.kind, below(record.run, seen | {record.run}))
            for path, record, origin in found.get(parent, ())
            if record.run not in seen
        ]

    return below(run, frozenset({run}))


def _record(folder: Path) -> RunRecord | None:
    try:
        return read_record(folder / "run.json")
    except ValueError:
        return None
