"""Scores by position: documents read as streams, the model's state carried along."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from megalodon_jax import MegalodonForCausalLM

from chomp.data import BatchSpec, Tokenizer
from chomp.data.evaluation import cut_overlapping, scored_bytes
from chomp.data.packing import Segment, TokenizedDocument
from chomp.evaluation.block_losses import read_block
from chomp.trainer.score import Score

FIRST_RANGE = 256
"""Positions of the first range; each further one is twice as long."""


class PositionScore(NamedTuple):
    """The score of the tokens at some positions of their documents."""

    first: int
    """Tokens before the first target of the range: its context."""
    last: int
    score: Score


class StreamScorer:
    """Scores documents as streams of up to `context` tokens: nothing is cut at a row's end.

    The model reads a block of tokens after the other, and its state (attention's chunk, averages,
    counts of norms) carries over, so that memory doesn't grow with the context. A document that is
    longer is cut; each piece begins with a fresh state and the last token of the one before.

    Args:
        params: of the library's model.
        tokenizer: the documents'.
        layout: of training batches: as many streams at a time as it has rows.
        context: tokens of a stream at most.
    """

    def __init__(
        self, params: MegalodonForCausalLM, tokenizer: Tokenizer, layout: BatchSpec, context: int
    ):
        self._params, self._tokenizer, self._layout = params, tokenizer, layout
        self._context = context
        chunk = params.config.chunk_size
        self._block = chunk * max(1, FIRST_RANGE // chunk)

    def score(self, documents: Sequence[TokenizedDocument]) -> list[PositionScore]:
        """Return the scores of ranges of positions, ascending; empty ranges are left out."""
        pieces = [
            piece for document in documents for piece in cut_overlapping(document, self._context)
        ]
        longest = max((len(piece.tokens) for piece in pieces), default=0)
        nats, targets = np.zeros(longest), np.zeros(longest, np.int64)
        pieces.sort(key=lambda piece: len(piece.tokens), reverse=True)  # alike ones together
        rows = self._layout.batch
        for at in range(0, len(pieces), rows):
            self._add(pieces[at : at + rows], nats, targets)
        found = []
        for first, last in _ranges(self._context):
            count = int(targets[first : last + 1].sum())
            if count:
                size = sum(self._bytes(piece, first, last) for piece in pieces)
                score = Score(float(nats[first : last + 1].sum()), count, size)
                found.append(PositionScore(first, last, score))
        return found

    def _add(self, pieces: Sequence[Segment], nats: np.ndarray, targets: np.ndarray) -> None:
        """Add what each position of some streams gives: position p is that of its p-th target."""
        longest = max(len(piece.tokens) for piece in pieces)
        blocks = -(-(longest - 1) // self._block)
        ids = np.full((self._layout.batch, blocks * self._block + 1), self._layout.pad_id, np.int32)
        counts = np.zeros(ids.shape, bool)
        for row, piece in enumerate(pieces):
            ids[row, : len(piece.tokens)] = piece.tokens
            counts[row, 1 : len(piece.tokens)] = True
        if not self._layout.train_on_eos:
            counts &= ids != self._layout.eos_id
        cache = None
        for at in range(0, blocks * self._block, self._block):
            block = slice(at, at + self._block)
            labels = slice(at + 1, at + self._block + 1)
            lost, _, cache = read_block(
                self._params, cache, jnp.asarray(ids[:, block]), jnp.asarray(ids[:, labels])
            )
            there = counts[:, labels]
            # Positions of the last block past the longest stream have no targets.
            end = min(at + self._block, len(nats) - 1) - at
            found = np.where(there, np.asarray(lost, np.float64), 0.0).sum(axis=0)
            nats[at + 1 : at + 1 + end] += found[:end]
            targets[at + 1 : at + 1 + end] += there.sum(axis=0)[:end]

    def _bytes(self, piece: Segment, first: int, last: int) -> int:
        tokens = piece.tokens.tolist()
        if len(tokens) <= first:
            return 0
        return scored_bytes(tokens[: last + 1], self._tokenizer, self._layout, first)


def _ranges(context: int) -> Iterator[tuple[int, int]]:
    first, end = 1, FIRST_RANGE
    while first < context:
        yield first, min(end, context) - 1
        first, end = end, 2 * end
