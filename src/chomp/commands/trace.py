"""The documents that a step was trained on."""

import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.cells import cell_len, set_cell_size

from chomp.checkpoint.compatibility import changes
from chomp.config import config_from_mapping
from chomp.config.data import DataConfig
from chomp.data import at_commits, open_whole_corpus
from chomp.data.all_sources import source_of
from chomp.data.sources.documents import Shard
from chomp.data.sources.read_policy import read_policy
from chomp.data.sources.rows import BrokenFileError
from chomp.data.token_cache.corpus import TokenRows
from chomp.errors import DataError, ResumeError
from chomp.run.ledger_search import Entry, find_entry
from chomp.run.lineage import trained_by
from chomp.run.run_folder import RunFolder
from chomp.system.terminal import one_line

FIRST_CHARACTERS = 200
LEAST_WIDTH = 20


class Document(NamedTuple):
    """A document of a step."""

    source: str
    """Path of a file, or name of a shard."""
    row: int
    """Its place there, from 0."""
    text: str | None
    """Its first `FIRST_CHARACTERS`; None if it can't be read."""
    problem: str | None
    """Why it can't be read."""


class Trace(NamedTuple):
    """The batch and the documents that a step was trained on."""

    step: int
    batch: int
    hash: str
    tokens: int
    targets: int
    documents: list[Document]

    def as_json(self) -> str:
        """Return it as one line of JSON."""
        documents = [document._asdict() for document in self.documents]
        return json.dumps(self._asdict() | {"documents": documents})


def trace(run_dir: Path, step: int | None) -> Trace:
    """Find the documents of a step, or of the newest one with None.

    Raises:
        ResumeError: the folder holds no run, the run has no ledger, or that has no such step.
        DataError: the corpus can't be opened, or isn't the one that the step was trained on.
    """
    folder = RunFolder(run_dir)
    folder.require_run()
    if step is not None:
        folder = trained_by(folder, step)
    if not folder.ledger.exists():
        raise ResumeError(
            f"{folder.path} has no {folder.ledger.name}: its training has not begun, or "
            "logging.ledger_every is 0"
        )
    config = config_from_mapping(folder.read_resolved())
    entry = _entry(folder.ledger, step, config.logging.ledger_every)
    reading = read_policy(config.data, threading.Event())._replace(skip_broken=True)
    then = at_commits(_sources_then(config.data, entry), entry.data)
    corpus = open_whole_corpus(then, reading)
    _check_corpus(entry, corpus.fingerprint)
    documents = read_documents(corpus.shards, entry.docs)
    return Trace(entry.step, entry.batch, entry.hash, entry.tokens, entry.targets, documents)


def _entry(ledger: Path, step: int | None, every: int) -> Entry:
    found = find_entry(ledger, step)
    if found.entry is not None:
        return found.entry
    if step is None or found.last is None:
        raise ResumeError(f"{ledger} holds no step yet")
    if every and step >= found.last + every:
        raise ResumeError(f"step {step} isn't reached: {ledger} ends at step {found.last} so far")
    raise ResumeError(
        f"step {step} is not in {ledger}, which goes from step {found.first} to "
        f"{found.last} (logging.ledger_every: {every})"
    )


def _sources_then(config: DataConfig, entry: Entry) -> DataConfig:
    """Return the section `data` with the sources of a step, in the order that numbers their shards.

    A resume may have added some, or changed their order.
    """
    sources = {source.name: source for source in config.sources}
    then = dict.fromkeys(found for key in entry.data if (found := source_of(key)))
    kept = tuple(sources[name] for name in then if name in sources)
    return config.model_copy(update={"sources": kept}) if kept else config


def _check_corpus(entry: Entry, now: dict[str, Any]) -> None:
    then = {key: entry.data[key] for key in entry.data if not key.startswith("evaluation ")}
    if found := changes({"data.content": then}, {"data.content": now}):
        lines = [
            f"the corpus has changed since step {entry.step} was trained on it:",
            *(f"  {change}" for change in found),
            "its rows may be other documents now; put the old files back to see them",
        ]
        raise DataError("\n".join(lines))


def read_documents(shards: Sequence[Shard], places: Sequence[tuple[int, int]]) -> list[Document]:
    """Read the beginnings of the documents at (shard, row), in the order of `places`."""
    rows: dict[int, list[int]] = {}
    for shard, row in places:
        rows.setdefault(shard, []).append(row)
    found = {
        (shard, document.row): document
        for shard, wanted in rows.items()
        for pass_ in _passes(shards[shard], sorted(wanted))
        for document in _read_shard(shards[shard], pass_)
    }
    return [found[place] for place in places]


def _passes(shard: Shard, wanted: Sequence[int]) -> Sequence[Sequence[int]]:
    """Split rows into those to read in one pass: what lies between them is read as well."""
    return [[row] for row in wanted] if isinstance(shard, TokenRows) else [wanted]


def _read_shard(shard: Shard, wanted: Sequence[int]) -> Iterator[Document]:
    """Read ascending rows in one pass, from the first of them to the last."""
    left = list(wanted)
    problem = "there is no such row"
    try:
        for number, row in shard.rows(left[0]):
            while left and left[0] < number:
                yield Document(shard.name, left.pop(0), None, problem)
            if left and left[0] == number:
                text = row.text and row.text[:FIRST_CHARACTERS]
                fault = None if text else row.fault or "it has no text"
                yield Document(shard.name, left.pop(0), text or None, fault)
            if not left:
                return
    except (BrokenFileError, DataError, OSError, *shard.transient) as error:
        problem = str(error)
    for number in left:
        yield Document(shard.name, number, None, problem)


def trace_lines(found: Trace, width: int) -> list[str]:
    """Return what a person reads: a line for the step and one for each document.

    Args:
        found: what was found.
        width: cells of a line, at least some; long paths lose their beginning, texts their end.
    """
    half = max(LEAST_WIDTH, width // 2)
    places = [f"{_end(one_line(d.source), half)}, row {d.row}" for d in found.documents]
    column = max(map(cell_len, places), default=0)
    room = max(LEAST_WIDTH, width - column - 4)
    lines = [
        f"step {found.step}, batch {found.batch}, hash {found.hash}: {found.tokens:,} tokens, "
        f"{found.targets:,} targets, {len(places)} document(s)"
    ]
    for place, document in zip(places, found.documents, strict=True):
        text = f"(can't be read: {document.problem})" if document.problem else document.text or ""
        lines.append(f"  {set_cell_size(place, column)}  {_cut(one_line(text), room)}")
    return lines


def _end(text: str, room: int) -> str:
    return text if len(text) <= room else "…" + text[1 - room :]


def _cut(text: str, room: int) -> str:
    return text if cell_len(text) <= room else set_cell_size(text, room - 1).rstrip() + "…"
