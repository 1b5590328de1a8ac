"""Encoding: documents to tokens, block by block, ahead of the packer."""

import collections
import math
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import grain.python as grain
import numpy as np

from chomp.data.packing import Block, TokenizedDocument
from chomp.data.sources.documents import Document
from chomp.data.tokenizers.base import Tokenizer
from chomp.errors import DataError

BLOCK_DOCUMENTS = 64
"""Documents encoded at once: enough to keep all cores busy, few enough to keep little waiting."""
THREADS = 2
"""Blocks encoded at a time. A tokenizer uses all cores for one block already, but its ids become
arrays under Python's lock, and its last long document keeps one core: the next block fills in."""
BLOCK_CHARACTERS = 4_000_000
"""A block ends after this much text: huge documents are encoded, and wait, one by one."""
EPOCH_CHARACTERS = 2_000_000
"""A block with this much text ends with its epoch: a large file would be encoded twice else."""
MOST_AHEAD = 4
"""Blocks encoded ahead at most. One more each time the packer had to wait for one: a start, which
has the cores busy compiling, encodes only what it needs."""
Ahead = tuple[int, Future[Block], dict[str, Any]]
"""The first epoch of a block that is being encoded, the block, and the state after it."""
EMPTY_BLOCKS = 100
INTERRUPTED = RuntimeError("the stream was interrupted while it read; set its state to go on")
NO_TOKENS = np.zeros(0, np.int32)


def encode(
    documents: Sequence[Document], tokenizer: Tokenizer, max_tokens: int | None
) -> list[TokenizedDocument]:
    """Encode documents, cut after `max_tokens`; one that gives no token counts as skipped."""
    ids = iter(tokenizer.encode_batch([document.text for document in documents if document.text]))
    return [
        _encoded(document, next(ids) if document.text else NO_TOKENS, max_tokens)
        for document in documents
    ]


def _encoded(document: Document, ids: np.ndarray, max_tokens: int | None) -> TokenizedDocument:
    if len(ids) == 0:
        skipped = document.skipped + bool(document.text)
        return TokenizedDocument(ids, document.key, skipped=skipped, epoch=document.epoch)
    cut = max_tokens is not None and len(ids) > max_tokens
    ids = ids[:max_tokens] if cut else ids
    counts = (document.repaired, document.skipped, document.epoch)
    sizes = (len(document.text), document.size)
    return TokenizedDocument(ids, document.key, cut, *counts, *sizes)


class EncodedBlocks(grain.IterDataset[Block]):
    """Blocks of up to `BLOCK_DOCUMENTS` encoded documents, some encoded ahead in threads.

    With `short_before_error` the documents right before a broken one come as a shorter block.
    """

    def __init__(
        self,
        parent: grain.IterDataset[Document],
        tokenizer: Tokenizer,
        max_tokens: int | None,
        *,
        short_before_error: bool,
    ):
        super().__init__(parent)
        self._options = (tokenizer, max_tokens, short_before_error)

    def __iter__(self) -> "EncodingIterator":
        return EncodingIterator(self._parent.__iter__(), *self._options)


class EncodingIterator(grain.DatasetIterator[Block]):
    """Reads documents in the caller's thread and encodes them in its own, in order.

    The state is the parent's after the last block given out.
    """

    def __init__(
        self,
        parent: grain.DatasetIterator[Document],
        tokenizer: Tokenizer,
        max_tokens: int | None,
        short_before_error: bool,
    ):
        super().__init__(parent)
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens
        self._short_before_error = short_before_error
        self._closed = False
        self.across_epochs = False
        """Whether a block never ends with its epoch, as in earlier versions."""
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="encode")
        self._restart(parent.get_state())

    def _restart(self, state: dict[str, Any]) -> None:
        self._state = state
        self._ahead: collections.deque[Ahead] = collections.deque()
        self._peeked: Document | None = None
        self._depth = 1
        self._end: Exception | None = None
        self._empty = 0

    def get_state(self) -> dict[str, Any]:
        """Return the parent's state after the last block given out."""
        return self._state

    def set_state(self, state: dict[str, Any]) -> None:
        """Go to where `state` was taken."""
        self._drop()
        self._parent.set_state(state)
        self._restart(state)

    def __next__(self) -> Block:
        while self._end is None and len(self._ahead) < self._depth:
            self._read_block()
        if not self._ahead:
            assert self._end is not None
            raise self._end
        _, future, state = self._ahead.popleft()
        if not future.done():
            self._depth = min(self._depth + 1, MOST_AHEAD)
        block = future.result()
        self._state = state
        self._check(block)
        return block

    def _read_block(self) -> None:
        """Read a block and have it encoded; an error waits until what came before it is gone."""
        documents: list[Document] = []
        characters = 0
        state: dict[str, Any] | None = None
        ended, self._end = self._end, INTERRUPTED
        try:
            while len(documents) < BLOCK_DOCUMENTS and characters < BLOCK_CHARACTERS:
                may_end = characters >= EPOCH_CHARACTERS and not self.across_epochs
                before = self._parent.get_state() if may_end else None
                document = self._peeked or next(self._parent)
                self._peeked = None
                if before is not None and document.epoch > documents[-1].epoch:
                    self._peeked, state = document, before
                    break
                documents.append(document)
                characters += len(document.text)
        except StopIteration as end:
            ended = end
        except DataError as end:
            ended = end
            if not self._short_before_error:
                documents = []
        self._end = ended
        if documents:
            future = self._threads.submit(encode, documents, self._tokenizer, self._max_tokens)
            state = state or self._parent.get_state()
            self._ahead.append((documents[0].epoch, future, state))

    def next_epoch(self) -> float:
        """Return the next document's epoch; infinity at the end. Raises what reading it raises."""
        if self._ahead:
            return self._ahead[0][0]
        if self._end is None and self._peeked is None:
            self._end = INTERRUPTED
            try:
                self._peeked = next(self._parent)
                self._end = None
            except (StopIteration, DataError) as end:
                self._end = end
        if isinstance(self._end, DataError):
            raise self._end
        return math.inf if self._peeked is None else self._peeked.epoch

    def _check(self, block: Block) -> None:
        if any(len(document.tokens) for document in block):
            self._empty = 0
            return
        self._empty += 1
        if self._empty == EMPTY_BLOCKS:
            raise DataError(
                f"the tokenizer gives no token for {EMPTY_BLOCKS * BLOCK_DOCUMENTS} documents in a "
                "row; data.tokenizer doesn't suit this corpus"
            )

    def _drop(self) -> None:
        for _, future, _ in self._ahead:
            future.cancel()
        self._ahead.clear()

    def close(self) -> None:
        """Stop the threads."""
        if self._closed:  # Grain closes once more when the interpreter takes itself apart
            return
        self._closed = True
        self._drop()
        self._threads.shutdown(wait=False, cancel_futures=True)
        super().close()
