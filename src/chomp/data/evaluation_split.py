"""The documents to evaluate on: some held out of training, or a part of a single one."""

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import NamedTuple

import grain.python as grain

from chomp.data.sources.documents import Document, Shard
from chomp.data.sources.rows import Row
from chomp.errors import DataError
from chomp.types import ROW_BITS

MOST = 1000
"""Evaluation documents, unless the config says how many."""
SHARE = 20
"""Of so many documents, one is held out, unless the config says how many."""
MOST_COUNTED = MOST * SHARE
MOST_CHARACTERS = 1 << 28
"""Text read at most to count documents: with more, those counted are taken for all."""
LINE = 1000
"""Characters in which the end of a line is looked for, to cut there."""


class EvaluationSplit:
    """The first documents of a stream, which are evaluated on; read when they are first needed.

    Args:
        stream: makes the stream.
        asked: how many; None: at most `MOST`, and of documents that are to be held out at most
            one in `SHARE`.
        held_out: whether they are held out of training; else they are only evaluated on.
    """

    def __init__(
        self,
        stream: Callable[[], grain.IterDataset[Document]],
        asked: int | None,
        *,
        held_out: bool,
    ):
        self._stream, self._asked, self._held_out = stream, asked, held_out

    @cached_property
    def _read(self) -> tuple[list[Document], int]:
        """The documents, and how many were counted."""
        keep = self._asked or MOST
        most = keep + 1 if self._asked or not self._held_out else MOST_COUNTED
        documents: list[Document] = []
        count = characters = 0
        for document in self._stream().__iter__():
            if not document.text:
                continue
            count += 1
            characters += len(document.text)
            if len(documents) < keep:
                documents.append(document._replace(skipped=0))
            enough = self._asked is None and characters >= MOST_CHARACTERS
            if count >= most or (enough and count > 1):
                break
        # Those that were kept and aren't needed would stay in memory as long as the run.
        return documents[: self._size(count)], count

    def _size(self, count: int) -> int:
        """Return how many documents are evaluated on, of so many."""
        if not self._held_out or (self._asked and self._asked < count):
            return self._asked or MOST
        return min(MOST, max(1, count // SHARE), count)

    def documents(self) -> list[Document]:
        """Return them."""
        return self._read[0]

    @property
    def only(self) -> Document | None:
        """The corpus's only document, if it has no other."""
        documents, count = self._read
        return documents[0] if count == 1 else None

    @property
    def note(self) -> str:
        """Message for the user if there are fewer documents than asked for; else empty."""
        count = self._read[1]
        if not self._held_out or not self._asked or self._asked < count:
            return ""
        size = len(self.documents())
        instead = f"{size} of them" if count > 1 else "the last part of it"
        return (
            f"data.max_eval_samples: {self._asked} documents can't be held out, as the corpus has "
            f"only {count}; evaluating on {instead} instead"
        )

    def keys(self) -> frozenset[int]:
        """Return their keys."""
        return frozenset(document.key for document in self.documents())


class PartShard(NamedTuple):
    """A shard in one of whose rows only a part of the text counts."""

    shard: Shard
    row: int
    part: slice

    @property
    def name(self) -> str:
        """The shard's name."""
        return self.shard.name

    @property
    def transient(self) -> tuple[type[BaseException], ...]:
        """The shard's transient errors."""
        return self.shard.transient

    def rows(self, start: int) -> Iterator[tuple[int, Row]]:
        """Yield the rows from `start` on."""
        for number, row in self.shard.rows(start):
            if number == self.row and row.text:
                row = row._replace(text=row.text[self.part])
            yield number, row


class Halves(NamedTuple):
    """A corpus of one document, cut in two."""

    first: list[Shard]
    """All shards, with the part that is trained on."""
    last: list[Shard]
    """The part that is evaluated on."""
    characters: int
    """Of the latter."""


def cut_in_two(shards: list[Shard], document: Document) -> Halves:
    """Cut the only document of a corpus so that its last twentieth is evaluated on.

    Raises DataError if it is too short for that.
    """
    text = document.text
    size = len(text) // SHARE
    if size < 2:
        raise DataError(
            f"the corpus is one document of {len(text)} characters: too short to evaluate on its "
            "last part; set train.eval_every: 0, or give more text"
        )
    at = len(text) - size
    at = text.rfind("\n", max(1, at - LINE), at) + 1 or at
    number, row = divmod(document.key, 1 << ROW_BITS)
    first = list(shards)
    first[number] = PartShard(shards[number], row, slice(0, at))
    return Halves(first, [PartShard(shards[number], row, slice(at, None))], len(text) - at)
