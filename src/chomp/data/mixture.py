"""Mixing data sources: whose row comes next, so that their shares of the targets are the weights.

Each lane mixes for itself, and draws a row at a time from the source that is most behind its
weight. At any row the targets of each source are as the weights say, to within a row or two.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import grain.python as grain

from chomp.config.data import DataConfig
from chomp.data.batching import BatchSpec, count_row_targets
from chomp.data.lane import Lane
from chomp.data.packing import Block, Blocks, PackedRow
from chomp.data.sources.documents import Document
from chomp.types import ROW_BITS

Weights = Mapping[str, float]
MOST_BEFORE = 1000
"""Rows that a lane counts as drawn before its first one, at most."""


class Schedule(NamedTuple):
    """The weights of the sources, by their names, at each batch."""

    stages: Sequence[tuple[int, Weights]]
    """The first batch of each stage, counted from 0, and its weights; the first stage begins at
    0."""

    @classmethod
    def of(cls, config: DataConfig) -> "Schedule":
        """Return the weights that the section `data` asks for."""
        first = {
            name: source.weight
            for name, source in zip(config.by_source(), config.sources, strict=True)
        }
        later = [(stage.from_step - 1, dict(stage.weights)) for stage in config.stages]
        return cls([(0, first), *later])

    def at(self, batch: int) -> Weights:
        """Return the weights of a batch, counted from 0."""
        return next(weights for start, weights in reversed(self.stages) if start <= batch)


class SourceBlocks(grain.IterDataset[Block]):
    """The blocks of one source of several: its documents have keys that no other source's have.

    Args:
        blocks: of the source alone.
        source: its number.
        first_shard: the number of its first shard among those of all sources.
    """

    def __init__(self, blocks: grain.IterDataset[Block], source: int, first_shard: int):
        super().__init__(blocks)
        self._source, self._first_key = source, first_shard << ROW_BITS

    def __iter__(self) -> "SourceBlockIterator":
        return SourceBlockIterator(self._parent.__iter__(), self._source, self._first_key)


class SourceBlockIterator(grain.DatasetIterator[Block]):
    """Has no state of its own."""

    def __init__(self, parent: grain.DatasetIterator[Block], source: int, first_key: int):
        super().__init__(parent)
        self._blocks = cast(Blocks, parent)
        self._source, self._first_key = source, first_key

    @property
    def across_epochs(self) -> bool:
        """Whether a block never ends with its epoch, as in earlier versions."""
        return self._blocks.across_epochs

    @across_epochs.setter
    def across_epochs(self, value: bool) -> None:
        self._blocks.across_epochs = value

    def next_epoch(self) -> float:
        """Return the next document's epoch; infinity at the end."""
        return self._blocks.next_epoch()

    def __next__(self) -> Block:
        return [
            document._replace(
                source=self._source,
                key=document.key + self._first_key if document.key >= 0 else document.key,
            )
            for document in next(self._blocks)
        ]

    def get_state(self) -> dict[str, Any]:
        """Return the parent's state."""
        return self._blocks.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        """Set the parent's state."""
        self._blocks.set_state(state)


class MixedRows(grain.IterDataset[PackedRow]):
    """A lane's rows, each from one of several sources.

    A source that has ended leaves its share to the others; the end is that of the last one with a
    weight.

    Args:
        sources: packed rows of each, by its name.
        schedule: their weights.
        layout: of the batches of all lanes together.
        lane: whose rows these are.
    """

    def __init__(
        self,
        sources: Mapping[str, grain.IterDataset[PackedRow]],
        schedule: Schedule,
        layout: BatchSpec,
        lane: Lane,
    ):
        super().__init__(list(sources.values()))
        self._sources, self._options = sources, (schedule, layout, lane)

    def __iter__(self) -> "MixedRowIterator":
        sources = {name: rows.__iter__() for name, rows in self._sources.items()}
        return MixedRowIterator(sources, *self._options)


class MixedRowIterator(grain.DatasetIterator[PackedRow]):
    """State: batches and rows of a batch given out, the weights in use, each source's targets
    since they are, the sources that have ended, and each source's state.
    """

    def __init__(
        self,
        sources: Mapping[str, grain.DatasetIterator[PackedRow]],
        schedule: Schedule,
        layout: BatchSpec,
        lane: Lane,
    ):
        super().__init__(list(sources.values()))
        self._sources, self._schedule, self._layout, self._lane = sources, schedule, layout, lane
        self._rows_of_batch = layout.accum * layout.batch // lane.of
        self._batches = self._row = 0
        self._ended: set[str] = set()
        self._begin(schedule.at(0))

    def _begin(self, weights: Weights) -> None:
        """Count from here on, as if some rows had been drawn.

        How many differs by lane, so that a rare source comes in one lane after the other: rounded
        alike in all of them, its share would be off by a row of each.
        """
        self._weights = weights
        self._targets: dict[str, int] = dict.fromkeys(self._sources, 0)
        least = min(weight for weight in weights.values() if weight) / sum(weights.values())
        part = ((self._lane.number + 0.5) / self._lane.of + 0.5) % 1  # 0 for a single lane
        for _ in range(min(int(part / least), MOST_BEFORE)):
            self._targets[self._next_source()] += self._layout.time

    def get_state(self) -> dict[str, Any]:
        """Return the place in the mixture and in each source."""
        return {
            "batches": self._batches,
            "row": self._row,
            "weights": dict(self._weights),
            "targets": dict(self._targets),
            "ended": sorted(self._ended),
            "sources": {name: rows.get_state() for name, rows in self._sources.items()},
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go to where `state` was taken."""
        self._batches, self._row = state["batches"], state["row"]
        self._weights, self._targets = state["weights"], dict(state["targets"])
        self._ended = set(state.get("ended", ()))
        for name, rows in self._sources.items():
            rows.set_state(state["sources"][name])

    def __next__(self) -> PackedRow:
        weights = self._schedule.at(self._batches)
        if weights != self._weights:
            self._begin(weights)
        while True:
            name = self._next_source()
            row = next(self._sources[name], None)
            if row is not None:
                break
            self._ended.add(name)
        # A row without a target counts as a whole one: its source would be next for ever.
        self._targets[name] += count_row_targets(row, self._layout) or self._layout.time
        self._row += 1
        if self._row == self._rows_of_batch:
            self._batches, self._row = self._batches + 1, 0
        return row

    def _next_source(self) -> str:
        """Return the source most behind its weight. Raises StopIteration if all have ended."""
        live = [name for name, w in self._weights.items() if w and name not in self._ended]
        if not live:
            raise StopIteration
        whole = sum(self._weights[name] for name in live)
        targets = sum(self._targets[name] for name in live) + self._layout.time
        return max(
            live, key=lambda name: self._weights[name] / whole * targets - self._targets[name]
        )


class MixedDocuments(grain.IterDataset[Document]):
    """Documents of several sources in turn, each without an end."""

    def __init__(self, sources: Mapping[str, grain.IterDataset[Document]]):
        super().__init__(list(sources.values()))
        self._sources = sources

    def __iter__(self) -> "MixedDocumentIterator":
        return MixedDocumentIterator({name: d.__iter__() for name, d in self._sources.items()})


class MixedDocumentIterator(grain.DatasetIterator[Document]):
    """State: the source whose turn it is, and each source's state."""

    def __init__(self, sources: Mapping[str, grain.DatasetIterator[Document]]):
        super().__init__(list(sources.values()))
        self._sources, self._turn = sources, 0

    def get_state(self) -> dict[str, Any]:
        """Return the turn and the place in each source."""
        states = {name: documents.get_state() for name, documents in self._sources.items()}
        return {"turn": self._turn, "sources": states}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go to where `state` was taken; a source that it doesn't know begins."""
        self._turn = state["turn"] % len(self._sources)
        for name, documents in self._sources.items():
            if name in state["sources"]:
                documents.set_state(state["sources"][name])

    def __next__(self) -> Document:
        documents = list(self._sources.values())[self._turn]
        self._turn = (self._turn + 1) % len(self._sources)
        return next(documents)
