"""Streams of a prepared corpus: their state is one number, the documents given out so far."""

from collections.abc import Iterator
from typing import Any

import grain.python as grain
import numpy as np

from chomp.data.documents import Document
from chomp.data.encoding import BLOCK_CHARACTERS, BLOCK_DOCUMENTS, NO_TOKENS
from chomp.data.index_order import documents_at
from chomp.data.packing import Block, Encoded
from chomp.data.token_corpus import TokenShards
from chomp.data.tokenizer import Tokenizer


class TokenBlocks(grain.IterDataset[Block]):
    """Blocks of documents, as `EncodedBlocks` gives them for the same documents.

    Args:
        shards: the documents.
        seed: each epoch has an order of its own, drawn from it; None: the order of preparing.
        repeat: go on with the next epoch at the end of one.
        skipped_at_end: documents left out behind the last one; they count in the next epoch.
        alone: they come before that epoch's first document, not with it.
    """

    def __init__(
        self,
        shards: TokenShards,
        *,
        seed: int | None,
        repeat: bool,
        skipped_at_end: int = 0,
        alone: bool = False,
    ):
        super().__init__()
        self._options = (shards, seed, repeat, skipped_at_end, alone)

    def __iter__(self) -> "TokenBlockIterator":
        return TokenBlockIterator(*self._options)


class TokenBlockIterator(grain.DatasetIterator[Block]):
    """State: the position in the endless stream of epochs.

    An epoch with an element for what was left out is longer by one; in the first, that is passed.
    """

    def __init__(
        self,
        shards: TokenShards,
        seed: int | None,
        repeat: bool,
        skipped_at_end: int,
        alone: bool,
    ):
        super().__init__()
        self._shards, self._seed, self._repeat = shards, seed, repeat
        self._skipped_at_end = skipped_at_end
        self._extra = int(alone and skipped_at_end > 0)
        self._position = self._extra

    def get_state(self) -> dict[str, int]:
        """Return the position of the next document."""
        return {"position": self._position}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go to where `state` was taken."""
        self._position = state["position"]

    def __next__(self) -> Block:
        end = len(self._shards) + self._extra
        first, stop = self._position, self._position + BLOCK_DOCUMENTS
        if not self._repeat:
            stop = min(stop, end)
        block: Block = []
        characters = 0
        for epoch, place, number in self._numbers(first, stop):
            block.append(self._element(epoch, place, number))
            characters += block[-1].characters
            if characters >= BLOCK_CHARACTERS:
                break
        self._position = first + len(block)
        full = len(block) == BLOCK_DOCUMENTS or characters >= BLOCK_CHARACTERS
        if not self._repeat and self._position == end and not full:
            self._position += 1  # the end is told once
            if self._skipped_at_end:
                block.append(Encoded(NO_TOKENS, -1, skipped=self._skipped_at_end))
        if not block:
            raise StopIteration
        return block

    def _numbers(self, first: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Yield epoch, place in it and document for each position."""
        count = len(self._shards)
        positions = np.arange(first, stop, dtype=np.uint64)
        epochs, places = np.divmod(positions, np.uint64(count + self._extra))
        among = np.maximum(places, np.uint64(self._extra)) - np.uint64(self._extra)
        numbers = documents_at(epochs * np.uint64(count) + among, count, self._seed)
        return zip(epochs.tolist(), places.tolist(), numbers.tolist(), strict=True)

    def _element(self, epoch: int, place: int, number: int) -> Encoded:
        if self._extra and place == 0:
            return Encoded(NO_TOKENS, -1, skipped=self._skipped_at_end, epoch=epoch)
        document = self._shards.document(number, epoch)
        if epoch and place == 0:
            return document._replace(skipped=document.skipped + self._skipped_at_end)
        return document


class TokenTexts(grain.IterDataset[Document]):
    """Documents decoded to text, epoch after epoch."""

    def __init__(self, shards: TokenShards, tokenizer: Tokenizer, *, seed: int | None):
        super().__init__()
        self._options = (shards, tokenizer, seed)

    def __iter__(self) -> "TokenTextIterator":
        return TokenTextIterator(*self._options)


class TokenTextIterator(grain.DatasetIterator[Document]):
    """State: the position in the endless stream of epochs."""

    def __init__(self, shards: TokenShards, tokenizer: Tokenizer, seed: int | None):
        super().__init__()
        self._shards, self._tokenizer, self._seed = shards, tokenizer, seed
        self._position = 0

    def get_state(self) -> dict[str, int]:
        """Return the position of the next document."""
        return {"position": self._position}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go to where `state` was taken."""
        self._position = state["position"]

    def __next__(self) -> Document:
        position = np.array([self._position], np.uint64)
        number = int(documents_at(position, len(self._shards), self._seed)[0])
        self._position += 1
        tokens = self._shards.document(number).tokens
        return Document(self._tokenizer.decode(tokens.tolist()), number)
