"""Streams of a prepared corpus: their state is one number, the documents given out so far."""

import math
from collections.abc import Iterator
from typing import Any

import grain.python as grain
import numpy as np

from chomp.data.lane import WHOLE, Lane
from chomp.data.packing import Block, TokenizedDocument
from chomp.data.sources.documents import Document
from chomp.data.token_cache.corpus import TokenShards
from chomp.data.token_cache.permutation import documents_at
from chomp.data.tokenize import BLOCK_CHARACTERS, BLOCK_DOCUMENTS, EPOCH_CHARACTERS, NO_TOKENS
from chomp.data.tokenizers.base import Tokenizer


class TokenBlocks(grain.IterDataset[Block]):
    """Blocks of documents, as `EncodedBlocks` gives them for the same documents.

    Args:
        shards: the documents.
        seed: each epoch has an order of its own, drawn from it; None: the order of preparing.
        repeat: go on with the next epoch at the end of one.
        skipped_at_end: documents left out after the last one; they count in the next epoch.
        alone: they come before that epoch's first document, not with it.
        lane: has every `lane.of`th position in the endless stream of epochs.
    """

    def __init__(
        self,
        shards: TokenShards,
        *,
        seed: int | None,
        repeat: bool,
        skipped_at_end: int = 0,
        alone: bool = False,
        lane: Lane = WHOLE,
    ):
        super().__init__()
        self._options = (shards, seed, repeat, skipped_at_end, alone, lane)

    def __iter__(self) -> "TokenBlockIterator":
        return TokenBlockIterator(*self._options)


class TokenBlockIterator(grain.DatasetIterator[Block]):
    """State: number of the lane's positions in the endless stream of epochs that were given out.

    An epoch with an element for what was left out is longer by one; in the first, that is passed.
    """

    def __init__(
        self,
        shards: TokenShards,
        seed: int | None,
        repeat: bool,
        skipped_at_end: int,
        alone: bool,
        lane: Lane,
    ):
        super().__init__()
        self._shards, self._seed, self._repeat, self._lane = shards, seed, repeat, lane
        self._skipped_at_end = skipped_at_end
        self.across_epochs = False
        """Whether a block never ends with its epoch, as in earlier versions."""
        self._extra = int(alone and skipped_at_end > 0)
        self._position = self._before(self._extra)
        self._end = self._before(len(shards) + self._extra)

    def _before(self, position: int) -> int:
        """Return how many positions of the lane come before one of all."""
        return len(range(self._lane.number, position, self._lane.of))

    def get_state(self) -> dict[str, int]:
        """Return the position of the next document."""
        return {"position": self._position}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go to where `state` was taken."""
        self._position = state["position"]

    def __next__(self) -> Block:
        first, stop = self._position, self._position + BLOCK_DOCUMENTS
        if not self._repeat:
            stop = min(stop, self._end)
        block: Block = []
        characters = 0
        for epoch, place, number in self._numbers(first, stop):
            may_end = characters >= EPOCH_CHARACTERS and not self.across_epochs
            if may_end and epoch > block[-1].epoch:
                break
            block.append(self._element(epoch, place, number))
            characters += block[-1].characters
            if characters >= BLOCK_CHARACTERS:
                break
        self._position = first + len(block)
        full = len(block) == BLOCK_DOCUMENTS or characters >= BLOCK_CHARACTERS
        if not self._repeat and self._position == self._end and not full:
            self._position += 1  # the end is told once
            if self._skipped_at_end and self._lane.number == 0:
                block.append(TokenizedDocument(NO_TOKENS, -1, skipped=self._skipped_at_end))
        if not block:
            raise StopIteration
        return block

    def next_epoch(self) -> float:
        """Return the next document's epoch; infinity at the end."""
        if not self._repeat and self._position >= self._end:
            return math.inf
        place = self._position * self._lane.of + self._lane.number
        return place // (len(self._shards) + self._extra)

    def _numbers(self, first: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Yield epoch, place in it and document for each position."""
        count = len(self._shards)
        lane = self._lane
        positions = np.arange(first, stop, dtype=np.uint64) * np.uint64(lane.of)
        positions += np.uint64(lane.number)
        epochs, places = np.divmod(positions, np.uint64(count + self._extra))
        among = np.maximum(places, np.uint64(self._extra)) - np.uint64(self._extra)
        numbers = documents_at(epochs * np.uint64(count) + among, count, self._seed)
        return zip(epochs.tolist(), places.tolist(), numbers.tolist(), strict=True)

    def _element(self, epoch: int, place: int, number: int) -> TokenizedDocument:
        if self._extra and place == 0:
            return TokenizedDocument(NO_TOKENS, -1, skipped=self._skipped_at_end, epoch=epoch)
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
