"""Batches: packed rows as arrays of one shape, with labels, masks and counts."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from chomp.config.data import DataConfig
from chomp.data.packing import PackedRow
from chomp.data.row_stats import combine, stats_of_rows
from chomp.types import IGNORE_LABEL, Batch, LoadedBatch


class BatchSpec(NamedTuple):
    """The shape of a batch and what its labels leave out."""

    accum: int
    batch: int
    time: int
    pad_id: int
    eos_id: int
    mask_boundaries: bool
    """The first token of each segment is no target."""
    train_on_eos: bool

    @classmethod
    def of(
        cls, config: DataConfig, shape: tuple[int, int, int], *, pad_id: int, eos_id: int
    ) -> "BatchSpec":
        """Return the batches that the section `data` asks for.

        Args:
            config: the section.
            shape: microbatches, rows of a microbatch (of all processes together), tokens of a row.
            pad_id: token of padded positions.
            eos_id: token that `data.train_on_eos: false` keeps out of the loss.
        """
        return cls(
            *(*shape, pad_id, eos_id),
            mask_boundaries=config.mask_boundary_loss or config.isolate_documents,
            train_on_eos=config.train_on_eos,
        )


def make_batch(rows: Sequence[PackedRow], layout: BatchSpec) -> Batch:
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


def count_row_targets(row: PackedRow, layout: BatchSpec) -> int:
    """Count the labels of a row that are in the loss, as `make_batch` lays it out."""
    counted = 0
    at = 0
    for piece in row:
        size = len(piece.tokens)
        # The first token of a row is predicted from nothing.
        first = 1 if size and (layout.mask_boundaries or at == 0) else 0
        counted += size - first
        if not layout.train_on_eos:
            counted -= int(np.count_nonzero(piece.tokens[first:] == layout.eos_id))
        at += size
    return counted


def draw(
    rows: Sequence[PackedRow], layout: BatchSpec, numbers: Sequence[int] | None = None
) -> LoadedBatch:
    """Make a batch of rows and count what is in it.

    Args:
        rows: the packed rows, at most accum * batch.
        layout: shape of the batch.
        numbers: the rows' positions in the whole batch; None: this is the whole.
    """
    batch = make_batch(rows, layout)
    stats = stats_of_rows(range(len(rows)) if numbers is None else numbers, rows, batch)
    return LoadedBatch(batch, combine([stats]), stats)
