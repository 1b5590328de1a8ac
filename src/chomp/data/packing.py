"""Packing: encoded documents into rows of at most `time` tokens.

A row is a list of pieces. Both packers are Grain datasets over blocks of documents, and their
state is the parent's state before the block (or round) in hand and a place within it. Grain's own
packers don't fit: its bins are filled in order of arrival, so `packing_buffer_docs` documents
couldn't be looked over before they are placed; they ask for the parent's state at each document
and copy every feature per token; concat-then-split has no way to say where a document starts.
"""

import bisect
import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, cast

import grain.python as grain
import numpy as np

from chomp.data.resume import misfit

MIN_ROWS = 64
"""A round of bin packing holds at least this many rows' worth of tokens: its last row is partly
empty, and the share of one row in a round must be small also when documents are short."""
ROUND_BYTES = 1 << 23
"""A round with enough tokens ends after this much text, however few documents that is: encoding
more would delay a start by more than a second or two."""
BEFORE_ALL = -1
"""The epoch before the first."""


class TokenizedDocument(NamedTuple):
    """A document's tokens. One without tokens only carries its counts."""

    tokens: np.ndarray
    """integers, [tokens]"""
    key: int
    truncated: bool = False
    repaired: bool = False
    skipped: int = 0
    epoch: int = 0
    characters: int = 0
    """Of the whole text, also where the tokens are cut."""
    bytes: int = 0
    """Length of the text in UTF-8 bytes."""
    source: int = 0
    """Number of the entry of `data.sources` that it is from."""


class Segment(NamedTuple):
    """A run of tokens of one document in one row."""

    tokens: np.ndarray
    document: TokenizedDocument
    starts: bool
    """The document's first token is here."""


Block = list[TokenizedDocument]
PackedRow = list[Segment]


class SequentialRows(grain.IterDataset[PackedRow]):
    """Documents one after the other, cut every `time` tokens; only the last row may be short."""

    def __init__(self, parent: grain.IterDataset[Block], *, time: int):
        super().__init__(parent)
        self._time = time

    def __iter__(self) -> "SequentialIterator":
        return SequentialIterator(self._parent.__iter__(), self._time)


class SequentialIterator(grain.DatasetIterator[PackedRow]):
    """State: the parent's before the block in hand, the document in it, the token in that."""

    def __init__(self, parent: grain.DatasetIterator[Block], time: int):
        super().__init__(parent)
        self._time = time
        self._restart(self._parent.get_state(), 0, 0)

    def _restart(self, parent: dict[str, Any], document: int, token: int) -> None:
        self._before, self._document, self._token = parent, document, token
        self._block: Block | None = None

    def get_state(self) -> dict[str, Any]:
        """Return where the next row starts."""
        return {"parent": self._before, "document": self._document, "token": self._token}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go to where `state` was taken."""
        self._parent.set_state(state["parent"])
        self._restart(state["parent"], state.get("document", 0), state.get("token", 0))

    def __next__(self) -> PackedRow:
        row: PackedRow = []
        room = self._time
        while room:
            if self._block is None:
                self._block = self._block_in_hand()
                self._check_place(self._block)
            if self._document < len(self._block):
                room -= self._take(self._block[self._document], room, row)
                continue
            before = self._parent.get_state()
            block = next(self._parent, None)
            if block is None:
                break
            self._before, self._block, self._document = before, block, 0
        if room == self._time:  # the end: at most counts are left
            raise StopIteration
        return row

    def _block_in_hand(self) -> Block:
        """Return the block that holds the next document; those of earlier versions were longer."""
        block = next(self._parent, [])
        while block and self._document >= len(block):
            self._document -= len(block)
            self._before = self._parent.get_state()
            block = next(self._parent, [])
        if self._document > len(block):
            raise misfit(f"document {self._document} after those that were read before")
        return block

    def _check_place(self, block: Block) -> None:
        size = len(block[self._document].tokens) if self._document < len(block) else 0
        if self._token and self._token >= size:
            raise misfit(f"token {self._token} of a document of {size}")

    def _take(self, document: TokenizedDocument, room: int, row: PackedRow) -> int:
        tokens = document.tokens[self._token : self._token + room]
        row.append(Segment(tokens, document, starts=self._token == 0))
        self._token += len(tokens)
        if self._token == len(document.tokens):
            self._document += 1
            self._token = 0
        return len(tokens)


class Blocks(Protocol):
    """An iterator over blocks that knows where epochs end."""

    across_epochs: bool
    """Whether a block never ends with its epoch, as in earlier versions."""

    def __next__(self) -> Block:
        """Return the next block."""
        ...

    def next_epoch(self) -> float:
        """Return the next document's epoch; infinity at the end. Encodes nothing."""
        ...

    def get_state(self) -> dict[str, Any]:
        """Return the place after the last block."""
        ...

    def set_state(self, state: dict[str, Any]) -> None:
        """Go to where `state` was taken."""
        ...


class BinRows(grain.IterDataset[PackedRow]):
    """Whole documents in rows, best fit; those longer than `time` are cut into pieces first.

    Works in rounds: documents are gathered, packed and given out, in order of each row's first
    document or, with a `seed`, shuffled. A round has at least `MIN_ROWS` rows' worth of tokens,
    and ends with `buffer` documents, with `ROUND_BYTES` of text, or when it has a whole epoch.
    """

    def __init__(
        self,
        parent: grain.IterDataset[Block],
        *,
        time: int,
        buffer: int,
        max_pieces: int | None,
        seed: int | None,
    ):
        super().__init__(parent)
        self._options = (time, buffer, max_pieces, seed)

    def __iter__(self) -> "BinIterator":
        return BinIterator(self._parent.__iter__(), *self._options)


class BinIterator(grain.DatasetIterator[PackedRow]):
    """State: the parent's before the round in hand, the round's number, the next row in it, and
    the epoch of the last document before the round.

    States of earlier versions have no such epoch: their rounds end with `buffer` documents only,
    and so do those that follow.
    """

    def __init__(
        self,
        parent: grain.DatasetIterator[Block],
        time: int,
        buffer: int,
        max_pieces: int | None,
        seed: int | None,
    ):
        super().__init__(parent)
        self._blocks = cast(Blocks, parent)
        self._time = time
        self._buffer = buffer
        self._max_pieces = max_pieces
        self._seed = seed
        self._restart(self._blocks.get_state(), 0, 0, BEFORE_ALL)

    def _restart(self, parent: dict[str, Any], number: int, row: int, epoch: int | None) -> None:
        self._before, self._round, self._row, self._epoch = parent, number, row, epoch
        self._rows: list[PackedRow] | None = None

    def get_state(self) -> dict[str, Any]:
        """Return the round and the row in it that comes next."""
        epoch = {} if self._epoch is None else {"epoch": self._epoch}
        return {"parent": self._before, "round": self._round, "row": self._row} | epoch

    def set_state(self, state: dict[str, Any]) -> None:
        """Go to where `state` was taken."""
        epoch = state.get("epoch", None if "row" in state else BEFORE_ALL)
        self._blocks.across_epochs = epoch is None
        self._blocks.set_state(state["parent"])
        self._restart(state["parent"], state.get("round", 0), state.get("row", 0), epoch)

    def __next__(self) -> PackedRow:
        if self._rows is None:
            self._rows = self._pack_round()
            if self._row and self._row >= len(self._rows):
                raise misfit(f"row {self._row} of {len(self._rows)} that were packed together")
        if not self._rows:
            raise StopIteration
        row = self._rows[self._row]
        self._row += 1
        if self._row == len(self._rows):
            epoch = None if self._epoch is None else self._last_epoch
            self._restart(self._blocks.get_state(), self._round + 1, 0, epoch)
        return row

    def _pack_round(self) -> list[PackedRow]:
        documents = self._gather()
        rows = pack_best_fit(cut(documents, self._time), self._time, self._max_pieces)
        if self._seed is None:
            return rows
        order = np.random.default_rng([self._seed, self._round]).permutation(len(rows))
        return [rows[i] for i in order]

    def _gather(self) -> list[TokenizedDocument]:
        """Return a round's documents, and keep the epoch of the last one."""
        documents: list[TokenizedDocument] = []
        tokens = size = 0
        whole = math.inf  # the first epoch that begins in this round
        while True:
            enough = tokens >= MIN_ROWS * self._time
            if enough and len(documents) >= self._buffer:
                break
            bounded = enough and self._epoch is not None
            if bounded and (size >= ROUND_BYTES or documents[-1].epoch > whole):
                break
            if bounded and self._blocks.next_epoch() > whole:
                break
            block = next(self._blocks, None)
            if block is None:
                break
            if self._epoch is not None and not documents:
                whole = max(block[0].epoch, self._epoch + 1)
            documents += block
            tokens += sum(len(document.tokens) for document in block)
            size += sum(document.bytes for document in block)
        self._last_epoch = documents[-1].epoch if documents else BEFORE_ALL
        return documents


def cut(documents: Sequence[TokenizedDocument], time: int) -> list[Segment]:
    """Cut each document into pieces of `time` tokens and a shorter last one."""
    return [
        Segment(document.tokens[at : at + time], document, starts=at == 0)
        for document in documents
        for at in range(0, max(len(document.tokens), 1), time)
    ]


def pack_best_fit(pieces: Sequence[Segment], time: int, max_pieces: int | None) -> list[PackedRow]:
    """Place each piece, the longest first, where it leaves the least room.

    Rows come in the order of their first piece, and pieces keep their order within a row. Pieces
    without tokens go to the first row: they aren't documents, only counts.

    Args:
        pieces: each of at most `time` tokens.
        time: a row's room in tokens.
        max_pieces: most pieces in a row; None for no limit.
    """
    bins: list[list[int]] = []
    rooms: list[tuple[int, int]] = []  # (room left, bin), sorted: of equal rooms the oldest bin
    for i in sorted(range(len(pieces)), key=lambda i: -len(pieces[i].tokens)):
        length = len(pieces[i].tokens)
        if length == 0:
            break
        at = bisect.bisect_left(rooms, (length, -1))
        if at < len(rooms):
            room, number = rooms.pop(at)
        else:
            room, number = time, len(bins)
            bins.append([])
        bins[number].append(i)
        if room > length and (max_pieces is None or len(bins[number]) < max_pieces):
            bisect.insort(rooms, (room - length, number))
    if bins:
        bins[0] += [i for i, piece in enumerate(pieces) if len(piece.tokens) == 0]
    bins = sorted((sorted(members) for members in bins), key=lambda members: members[0])
    return [[pieces[i] for i in members] for members in bins]
