"""Documents, and the Grain source that streams them shard by shard from an exact position."""

import logging
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import grain.python as grain
import numpy as np

from chomp.data.lane import WHOLE, Lane
from chomp.data.resume import misfit
from chomp.data.sources.read_policy import ReadPolicy, retry_or_raise
from chomp.data.sources.rows import BrokenFileError, Row
from chomp.data.sources.skipped import Skipped
from chomp.errors import DataError
from chomp.types import ROW_BITS

log = logging.getLogger(__name__)

ROWS_WITHOUT_KEY = 1000
"""So many rows in which `data.text_key` doesn't occur at all are a wrong key, not bad documents."""

REPAIRED = "hold broken characters, replaced by U+FFFD"
WHY_REPAIRED = "not UTF-8, or lone surrogates"


class Document(NamedTuple):
    """One text of the corpus. A document without text only carries `skipped`."""

    text: str
    key: int
    """shard << 32 | row; -1 without text."""
    repaired: bool = False
    skipped: int = 0
    """Documents left out since the last good one."""
    epoch: int = 0

    @property
    def size(self) -> int:
        """Bytes of the text in UTF-8."""
        return len(self.text) if self.text.isascii() else len(self.text.encode("utf-8", "replace"))


class Shard(Protocol):
    """A file, or a part of a dataset, whose rows can be read from any one on."""

    @property
    def name(self) -> str:
        """Name of the shard in error messages."""
        ...

    @property
    def transient(self) -> tuple[type[BaseException], ...]:
        """Errors that may go away: the network's. None for local files."""
        ...

    def rows(self, start: int) -> Iterator[tuple[int, Row]]:
        """Yield the rows from number `start` on, with their numbers.

        Raises BrokenFileError, OSError or one of `transient`.
        """
        ...


def document_key(shard: int, row: int) -> int:
    """Return the number that names a document of a corpus."""
    return shard << ROW_BITS | row


class DocumentStream(grain.IterDataset[Document]):
    """The documents of `shards`, epoch after epoch if `repeat`.

    With a `seed` the shards come in another order in each epoch; the rows of a shard always come
    in their own. A lane has every `lane.of`th shard; of fewer shards than lanes it has every
    `lane.of`th row.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        reading: ReadPolicy,
        *,
        repeat: bool,
        seed: int | None,
        lane: Lane = WHOLE,
    ):
        super().__init__()
        self._options = (shards, reading, repeat, seed, lane)

    def __iter__(self) -> "DocumentIterator":
        return DocumentIterator(*self._options)


class DocumentIterator(grain.DatasetIterator[Document]):
    """A cursor (epoch, shard, row) over the documents.

    A state is taken after a good document, so whatever was skipped after it is met again.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        reading: ReadPolicy,
        repeat: bool,
        seed: int | None,
        lane: Lane,
    ):
        super().__init__()
        self._shards = shards
        self._reading = reading
        self._repeat = repeat
        self._seed = seed
        self._lane = lane
        by_shard = len(shards) >= lane.of
        self._own = range(lane.number, len(shards), lane.of) if by_shard else range(len(shards))
        self._rows_of = WHOLE if by_shard else lane
        self.set_state({"epoch": 0, "shard": 0, "row": 0})

    def get_state(self) -> dict[str, int]:
        """Return where the next document is looked for."""
        return {"epoch": self._epoch, "shard": self._place, "row": self._row}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go to where `state` was taken."""
        self._epoch, self._place, self._row = state["epoch"], state["shard"], state["row"]
        if self._place > len(self._own):
            raise misfit(f"file or shard {self._place + 1} of {len(self._own)}")
        self._order = self._epoch_order()
        self._rows: Iterator[tuple[int, Row]] | None = None
        self._skipped = 0
        self._left_out = Skipped(self._reading.console)
        self._damaged = Skipped(self._reading.console, REPAIRED)
        self._found = (self._epoch, self._place, self._row) != (0, 0, 0)
        self._without_key = 0
        self._columns: dict[str, None] = {}

    def __next__(self) -> Document:
        while self._place < len(self._own):
            found = self._next_row()
            if found is None:
                self._end_shard()
                continue
            number, row = found
            if number % self._rows_of.of != self._rows_of.number:
                self._row = number + 1
                continue
            self._left_out.read()
            self._damaged.read()
            if not row.text:
                self._skip(row)
            elif row.repaired:
                self._damaged.add(self._shard().name, WHY_REPAIRED)
            self._row = number + 1
            if row.text:
                self._found = True
                skipped, self._skipped = self._skipped, 0
                key = document_key(self._order[self._place], number)
                return Document(row.text, key, row.repaired, skipped, self._epoch)
        if self._skipped:
            skipped, self._skipped = self._skipped, 0
            return Document("", -1, skipped=skipped, epoch=self._epoch)
        raise StopIteration

    def _shard(self) -> Shard:
        return self._shards[self._order[self._place]]

    def _epoch_order(self) -> list[int]:
        if self._seed is None:
            return list(self._own)
        order = np.random.default_rng([self._seed, self._epoch]).permutation(self._own)
        return order.tolist()

    def _next_row(self) -> tuple[int, Row] | None:
        shard = self._shard()
        attempt = 0
        while True:
            try:
                # A generator that raised is finished: it must not be taken for the shard's end.
                rows, self._rows = self._rows or shard.rows(self._row), None
                found = next(rows, None)
                self._rows = rows
                return found
            except BrokenFileError as error:
                if not shard.transient or attempt >= self._reading.max_retries:
                    fault = Row(fault=str(error))
                    self._refuse(fault)  # in every lane: each would lose the rest of its rows
                    self._rows = iter(())  # the rest of this shard is lost
                    return self._row, fault
                retry_or_raise(self._reading, attempt, shard.name, error)
            except shard.transient as error:
                retry_or_raise(self._reading, attempt, f"{shard.name}, row {self._row}", error)
            except OSError as error:
                raise DataError(f"{shard.name}: can't be read: {error}") from error
            attempt += 1

    def _refuse(self, row: Row) -> None:
        if row.fault and not self._reading.skip_broken:
            self._rows = None  # whoever goes on meets it again
            raise DataError(f"{row.fault} (data.on_error: skip leaves such documents out)")

    def _skip(self, row: Row) -> None:
        self._refuse(row)
        if row.fault:
            log.warning("left out: %s", row.fault)
        self._skipped += 1
        shard = self._shard()
        self._left_out.add(shard.name, *_reason(row, self._text_key(shard)))
        if row.columns:
            self._without_key += 1
            self._columns.update(dict.fromkeys(row.columns))
            if not self._found and self._without_key >= ROWS_WITHOUT_KEY:
                raise DataError(self._nothing_found(self._text_key(shard)))

    def _end_shard(self) -> None:
        key = self._text_key(self._shard())
        self._rows = None
        self._place += 1
        self._row = 0
        if self._place < len(self._own):
            return
        if not self._found:
            raise DataError(self._nothing_found(key))
        self._left_out.end_epoch()
        self._damaged.end_epoch()
        if self._repeat:
            self._epoch += 1
            self._place = 0
            self._order = self._epoch_order()
            self._found = False

    def _text_key(self, shard: Shard) -> str:
        return getattr(shard, "text_key", self._reading.text_key)

    def _nothing_found(self, key: str) -> str:
        if self._columns:
            there = ", ".join(list(self._columns)[:20])
            return f"data.text_key: no row has {key!r}; the keys there are: {there}"
        if self._lane.of > 1:
            return (
                f"data.lanes: lane {self._lane.number} of {self._lane.of} finds no text among "
                f"its documents (the corpus has {len(self._shards)} files or shards); use fewer"
            )
        count = self._skipped
        them = f"{count} document{'s, all' * (count != 1)}"
        return f"{self._reading.corpus} holds no text: {them} empty or left out"


def _reason(row: Row, text_key: str) -> tuple[str, str]:
    """Return why a row is left out, without its place, and what may differ between such rows."""
    if row.columns:
        return (
            f"no {text_key!r} (give the file its text_key)",
            f", but {', '.join(row.columns[:8])}",
        )
    if row.fault:
        return row.fault.partition(": ")[2].partition(":")[0] or row.fault, ""
    return "without text", ""
