"""Likelihoods of continuations: each read after the whole of its context, however long it is."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from megalodon_jax import MegalodonForCausalLM

from chomp.data import BatchSpec
from chomp.evaluation.block_losses import read_block

SHORTEST = 16
"""Tokens that the shortest program reads; each further one reads twice as many, up to a block."""
BLOCK = 256
"""Tokens read at a time of longer pairs, in whole chunks of attention."""
Pair = tuple[Sequence[int], Sequence[int]]
"""The ids of a context, at least one, and those of its continuation."""


class Likelihood(NamedTuple):
    """How likely a continuation is."""

    log_p: float
    """Natural logarithm of its probability, summed over its tokens."""
    greedy: bool
    """The likeliest token each time is its own."""


class ContinuationScorer:
    """Scores continuations; the model's state is carried along contexts that exceed a block.

    Args:
        params: of the library's model.
        layout: of training batches: as many pairs at a time as it has rows.
    """

    def __init__(self, params: MegalodonForCausalLM, layout: BatchSpec):
        self._params, self._layout = params, layout
        chunk = params.config.chunk_size
        self._block = chunk * max(1, BLOCK // chunk)

    def score(self, pairs: Sequence[Pair]) -> Iterator[tuple[int, Likelihood]]:
        """Yield the number of each pair with its likelihood, the longest pairs first."""
        # Those of like length together: few programs, little padding.
        order = sorted(range(len(pairs)), key=lambda number: -_length(pairs[number]))
        rows = self._layout.batch
        for at in range(0, len(order), rows):
            numbers = order[at : at + rows]
            found = self._together([pairs[number] for number in numbers])
            yield from zip(numbers, found, strict=True)

    def _together(self, pairs: Sequence[Pair]) -> list[Likelihood]:
        """Score as many pairs as a batch has rows, block by block with the state carried."""
        inputs = max(map(_length, pairs)) - 1
        block = self._block if inputs > self._block else _program_length(inputs, self._block)
        blocks = -(-inputs // block)
        ids = np.full((self._layout.batch, blocks * block + 1), self._layout.pad_id, np.int32)
        wanted = np.zeros(ids.shape, bool)
        for row, (context, continuation) in enumerate(pairs):
            end = len(context) + len(continuation)
            ids[row, :end] = [*context, *continuation]
            wanted[row, len(context) : end] = True
        nats, greedy = np.zeros(len(ids)), np.ones(len(ids), bool)
        cache = None
        for at in range(0, blocks * block, block):
            labels = slice(at + 1, at + block + 1)
            lost, likeliest, cache = read_block(
                self._params,
                cache,
                jnp.asarray(ids[:, at : at + block]),
                jnp.asarray(ids[:, labels]),
            )
            there = wanted[:, labels]
            nats += np.where(there, np.asarray(lost, np.float64), 0.0).sum(axis=1)
            greedy &= (np.asarray(likeliest) | ~there).all(axis=1)
        return [Likelihood(-float(nats[row]), bool(greedy[row])) for row in range(len(pairs))]


def _length(pair: Pair) -> int:
    return len(pair[0]) + len(pair[1])


def _program_length(inputs: int, longest: int) -> int:
    """Return the length of the shortest program that reads so many tokens."""
    return min(longest, max(SHORTEST, 1 << (inputs - 1).bit_length()))
