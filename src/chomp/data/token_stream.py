"""Streams of a prepared corpus: their state is one number, the documents given out so far."""

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
        skipped_at_end: documents left out behind the last one.
    """

    def __init__(
        self, shards: TokenShards, *, seed: int | None, repeat: bool, skipped_at_end: int = 0
    ):
        super().__init__()
        self._options = (shards, seed, repeat, skipped_at_end)

    def __iter__(self) -> "TokenBlockIterator":
        return TokenBlockIterator(*self._options)


class TokenBlockIterator(grain.DatasetIterator[Block]):
    """State: the position in the endless stream of epochs."""

    def __init__(self, shards: TokenShards, seed: int | None, repeat: bool, skipped_at_end: int):
        super().__init__()
        self._shards, self._seed, self._repeat = shards, seed, repeat
        self._skipped_at_end = skipped_at_end
        self._position = 0

    def get_state(self) -> dict[str, int]:
        """Return the position of the next document."""
        return {"position": self._position}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go to where `state` was taken."""
        self._position = state["position"]

    def __next__(self) -> Block:
        count = len(self._shards)
        first, stop = self._position, self._position + BLOCK_DOCUMENTS
        if not self._repeat:
            stop = min(stop, count)
        block: Block = []
        characters = 0
        numbers = documents_at(np.arange(first, stop, dtype=np.uint64), count, self._seed)
        for position, number in enumerate(numbers.tolist(), first):
            document = self._shards.document(number, position // count)
            if position and position % count == 0:
                document = self._after_end(document)
            block.append(document)
            characters += document.characters
            if characters >= BLOCK_CHARACTERS:
                break
        self._position = first + len(block)
        full = len(block) == BLOCK_DOCUMENTS or characters >= BLOCK_CHARACTERS
        if not self._repeat and self._position == count and not full:
            self._position += 1  # the end is told once
            if self._skipped_at_end:
                block.append(Encoded(NO_TOKENS, -1, skipped=self._skipped_at_end))
        if not block:
            raise StopIteration
        return block

    def _after_end(self, document: Encoded) -> Encoded:
        return document._replace(skipped=document.skipped + self._skipped_at_end)


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
