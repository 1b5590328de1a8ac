"""Lanes: the parts that a corpus is read in, each for its own rows of every batch.

Lane g of L supplies the rows from g * batch / L to (g + 1) * batch / L of every microbatch. What a
lane reads depends on L alone, so any number of processes draws the same batches: each runs the
lanes of its rows.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import grain.python as grain

from chomp.config.data import DataConfig
from chomp.config.validators.lanes import lanes_problem
from chomp.data.batching import BatchSpec, draw
from chomp.data.lane import Lane
from chomp.data.packing import PackedRow
from chomp.errors import DataError
from chomp.types import LoadedBatch

BARREN_BATCHES = 100
"""A corpus that gives no target in so many batches is refused."""


class RowAssignment(NamedTuple):
    """The rows of each microbatch that a process lays out, and the lanes that these come from."""

    lanes: int
    """Number of lanes of the whole batch."""
    batch: int
    """Rows of the whole microbatch."""
    rows: range
    """Rows that this process lays out."""

    @property
    def rows_of_lane(self) -> int:
        """Rows that a lane supplies to a microbatch."""
        return self.batch // self.lanes

    @property
    def own(self) -> list[Lane]:
        """The lanes that supply rows laid out."""
        size = self.rows_of_lane
        first, stop = self.rows.start // size, -(-self.rows.stop // size)
        return [Lane(number, self.lanes) for number in range(first, stop)]


def share_of(lanes: int, batch: int, rows: range | None) -> RowAssignment:
    """Return the share of the rows of a microbatch; None: all.

    Raises DataError if the lanes don't divide the rows.
    """
    rows = range(batch) if rows is None else rows
    if problem := lanes_problem(lanes, batch):
        raise DataError(f"data.lanes: {problem}")
    if rows.step != 1 or not 0 <= rows.start < rows.stop <= batch:
        raise ValueError(f"rows of a batch of {batch}: {rows}")
    return RowAssignment(lanes, batch, rows)


class LaneBatches(grain.IterDataset[LoadedBatch]):
    """The share of each batch, from the packed rows of its lanes.

    A lane that ends before others leaves its rows empty from there on.

    Args:
        lanes: rows of each lane in `share.own`.
        share: what is laid out.
        layout: shape of the whole batch.
    """

    def __init__(
        self,
        lanes: Mapping[Lane, grain.IterDataset[PackedRow]],
        share: RowAssignment,
        layout: BatchSpec,
    ):
        super().__init__(list(lanes.values()))
        self._lanes, self._share, self._layout = lanes, share, layout

    def __iter__(self) -> "LaneBatchIterator":
        lanes = {lane: rows.__iter__() for lane, rows in self._lanes.items()}
        return LaneBatchIterator(lanes, self._share, self._layout)


class LaneBatchIterator(grain.DatasetIterator[LoadedBatch]):
    """State: a list of all lanes' states, None for those that other processes run."""

    def __init__(
        self,
        lanes: Mapping[Lane, grain.DatasetIterator[PackedRow]],
        share: RowAssignment,
        layout: BatchSpec,
    ):
        super().__init__(list(lanes.values()))
        self._lanes, self._share = lanes, share
        self._layout = layout._replace(batch=len(share.rows))
        self._start = self.get_state()
        self._checked = False

    def get_state(self) -> dict[str, Any]:
        """Return the places of the lanes."""
        states: list[Any] = [None] * self._share.lanes
        for lane, rows in self._lanes.items():
            states[lane.number] = rows.get_state()
        return {"lanes": states}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go to where `state` was taken, by this process or by others."""
        states = state["lanes"]
        if len(states) != self._share.lanes:
            raise DataError(
                f"data.lanes: the run began with {len(states)} (got {self._share.lanes}); they stay"
            )
        for lane, rows in self._lanes.items():
            rows.set_state(states[lane.number])
        self._checked = state != self._start

    def __next__(self) -> LoadedBatch:
        drawn = self._draw()
        if not self._checked and not drawn.stats.targets:
            self._check_targets(drawn.stats.epoch)
        self._checked = True
        return drawn

    def _check_targets(self, epoch: int) -> None:
        """Look ahead of a first batch without targets for one. Raises DataError if none comes."""
        after = self.get_state()
        for _ in range(BARREN_BATCHES):
            if epoch >= 2:  # shuffled rows of the first epoch may come after the second's first
                break
            try:
                stats = self._draw().stats
            except StopIteration:
                break
            if stats.targets:
                self.set_state(after)
                return
            epoch = stats.epoch
        raise DataError(
            "the corpus gives no token to predict: what comes first in a document isn't predicted "
            "from another one (data.mask_boundary_loss, data.isolate_documents), nor EOS with "
            "data.train_on_eos: false, and there is nothing else; is data.tokenizer.max_doc_tokens "
            "too small, or data.text_key another text's?"
        )

    def _draw(self) -> LoadedBatch:
        share, accum = self._share, self._layout.accum
        size = share.rows_of_lane
        given = {
            lane.number: list(itertools.islice(rows, accum * size))
            for lane, rows in self._lanes.items()
        }
        if not any(given.values()):
            raise StopIteration
        numbers: list[int] = []
        packed: list[PackedRow] = []
        for step, row in itertools.product(range(accum), share.rows):
            lane, place = divmod(row, size)
            numbers.append(step * share.batch + row)
            # Nothing where the lane has ended.
            packed += given[lane][step * size + place :][:1] or [[]]
        return draw(packed, self._layout, numbers)


def lanes_at_start(config: DataConfig, batch: int, processes: int) -> int:
    """Return how many lanes a new run has.

    Args:
        config: the section `data`.
        batch: rows of a microbatch.
        processes: number of them that the run starts with.
    """
    if config.lanes is not None:
        return config.lanes
    sources = config.by_source().values() or [config]
    prepared = all(source.backend == "tokens" for source in sources)
    return 1 if prepared else math.gcd(processes, batch)


def lanes_of(state: Mapping[str, Any]) -> int:
    """Return how many lanes the run has that a `Data` state is from."""
    return len(state["train"]["lanes"])


def merge_states(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the state of the whole data from those of all processes, the first's first.

    The samples are those of the first process: no other draws any.

    Raises ValueError if processes that run the same lane are at different places of it, or none
    runs it.
    """
    merged: list[Any] = []
    for number, of_lane in enumerate(zip(*(s["train"]["lanes"] for s in states), strict=True)):
        known = [state for state in of_lane if state is not None]
        if not known or any(state != known[0] for state in known):
            raise ValueError(f"the processes' places in lane {number} don't fit: {known}")
        merged.append(known[0])
    return {"train": {"lanes": merged}, "samples": states[0]["samples"]}
