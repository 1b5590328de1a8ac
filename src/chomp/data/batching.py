"""Batches: packed rows as arrays of one shape, with labels, masks and counts."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import xxhash

from chomp.data.packing import Packed, Piece
from chomp.types import IGNORE_LABEL, Batch, BatchStats, Drawn


class Layout(NamedTuple):
    """The shape of a batch and what its labels leave out."""

    accum: int
    batch: int
    time: int
    pad_id: int
    eos_id: int
    mask_boundaries: bool
    """The first token of each segment is no target."""
    train_on_eos: bool


def make_batch(rows: Sequence[Packed], layout: Layout) -> Batch:
    """Lay out at most accum * batch rows; the rest of the batch is padding."""
    shape = (layout.accum, layout.batch, layout.time)
    tokens = np.full(shape, layout.pad_id, np.int32)
    segments = np.zeros(shape, np.int32)
    starts = []
    flat_tokens, flat_segments = tokens.reshape(-1), segments.reshape(-1)
    for number, row in enumerate(rows):
        at = number * layout.time
        segment = 0
        for piece in row:
            if end := len(piece.tokens):
                segment += 1
                starts.append(at)
                end += at
                flat_tokens[at:end] = piece.tokens
                flat_segments[at:end] = segment
                at = end
    mask = segments > 0
    labels = np.where(mask, tokens, np.int32(IGNORE_LABEL))
    if layout.mask_boundaries:
        labels.reshape(-1)[starts] = IGNORE_LABEL
    if not layout.train_on_eos:
        labels[labels == layout.eos_id] = IGNORE_LABEL
    return Batch(tokens, labels, segments, mask)


def count_targets(labels: np.ndarray) -> int:
    """Count the labels in the loss: position 0 of a row is predicted from nothing."""
    return int(np.count_nonzero(labels[..., 1:] != IGNORE_LABEL))


def batch_hash(batch: Batch) -> int:
    """Return 64 bits (XXH3) from shape, tokens, labels and segment ids."""
    hash_ = xxhash.xxh3_64(repr(batch.input_ids.shape).encode())
    for array in (batch.input_ids, batch.labels, batch.segment_ids):
        hash_.update(np.ascontiguousarray(array, "<i4").data)  # values, not memory layout
    return hash_.intdigest()


def draw(rows: Sequence[Packed], layout: Layout) -> Drawn:
    """Make a batch of rows and count what is in it."""
    batch = make_batch(rows, layout)
    pieces: list[Piece] = [piece for row in rows for piece in row]
    starting = [piece.document for piece in pieces if piece.starts]
    stats = BatchStats(
        targets=count_targets(np.asarray(batch.labels)),
        tokens=int(np.count_nonzero(batch.attention_mask)),
        documents=sum(len(document.tokens) > 0 for document in starting),
        truncated=sum(document.truncated for document in starting),
        skipped=sum(document.skipped for document in starting),
        repaired=sum(document.repaired for document in starting),
        keys=tuple(dict.fromkeys(p.document.key for p in pieces if len(p.tokens))),
        hash=batch_hash(batch),
        epoch=max((piece.document.epoch for piece in pieces), default=0),
    )
    return Drawn(batch, stats)
