"""Encoding: documents to tokens, block by block."""

from collections.abc import Sequence

import numpy as np

from chomp.data.documents import Document
from chomp.data.packing import Encoded
from chomp.data.tokenizer import Tokenizer
from chomp.errors import DataError

BLOCK_DOCUMENTS = 64
"""Documents encoded at once: enough to keep all cores busy, few enough to keep little waiting."""
EMPTY_BLOCKS = 100
NO_TOKENS = np.zeros(0, np.int32)


def encode(
    documents: Sequence[Document], tokenizer: Tokenizer, max_tokens: int | None
) -> list[Encoded]:
    """Encode documents, cut after `max_tokens`; one that gives no token counts as skipped."""
    ids = iter(tokenizer.encode_batch([document.text for document in documents if document.text]))
    return [
        _encoded(document, next(ids) if document.text else NO_TOKENS, max_tokens)
        for document in documents
    ]


def _encoded(document: Document, ids: np.ndarray, max_tokens: int | None) -> Encoded:
    if len(ids) == 0:
        return Encoded(ids, document.key, skipped=document.skipped + bool(document.text))
    cut = max_tokens is not None and len(ids) > max_tokens
    ids = ids[:max_tokens] if cut else ids
    return Encoded(ids, document.key, cut, document.repaired, document.skipped)


class Encoder:
    """Encodes blocks of documents. Raises DataError if block after block gives no token."""

    def __init__(self, tokenizer: Tokenizer, max_tokens: int | None):
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens
        self._empty = 0

    def __call__(self, documents: Sequence[Document]) -> list[Encoded]:
        """Encode one block."""
        block = encode(documents, self._tokenizer, self._max_tokens)
        if any(len(document.tokens) for document in block):
            self._empty = 0
            return block
        self._empty += 1
        if self._empty == EMPTY_BLOCKS:
            raise DataError(
                f"the tokenizer gives no token for {EMPTY_BLOCKS * BLOCK_DOCUMENTS} documents in a "
                "row; data.tokenizer doesn't suit this corpus"
            )
        return block
