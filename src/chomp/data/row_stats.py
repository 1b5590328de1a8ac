"""Per-row statistics, from which processes assemble the batch's."""

import itertools
from collections.abc import Iterable, Sequence

import numpy as np
import xxhash

from chomp.data.packing import PackedRow
from chomp.types import IGNORE_LABEL, Batch, BatchStats, RowStats, SourceCount


def count_targets(labels: np.ndarray) -> int:
    """Count the labels in the loss: position 0 of a row is predicted from nothing."""
    return int(np.count_nonzero(labels[..., 1:] != IGNORE_LABEL))


def row_hashes(batch: Batch) -> list[int]:
    """Return 64 bits (XXH3) of each row's tokens, labels and segment ids, [accum * batch]."""
    arrays = (batch.input_ids, batch.labels, batch.segment_ids)
    rows = np.ascontiguousarray(np.concatenate(arrays, axis=-1), "<i4")  # values, not layout
    return [xxhash.xxh3_64_intdigest(row.data) for row in rows.reshape(-1, rows.shape[-1])]


def stats_of_rows(
    numbers: Iterable[int], rows: Sequence[PackedRow], batch: Batch
) -> tuple[RowStats, ...]:
    """Count what each row that isn't empty holds.

    Args:
        numbers: the rows' positions in the whole batch.
        rows: the packed rows.
        batch: the same rows as arrays.
    """
    time = batch.input_ids.shape[-1]
    in_loss = np.asarray(batch.labels).reshape(-1, time)[:, 1:] != IGNORE_LABEL
    targets = np.count_nonzero(in_loss, axis=1).tolist()
    found = zip(numbers, row_hashes(batch), targets, rows, strict=False)  # rows may be fewer
    return tuple(_row_stats(*of_row) for of_row in found if of_row[-1])


def _row_stats(number: int, hash_: int, targets: int, row: PackedRow) -> RowStats:
    starting = [piece.document for piece in row if piece.starts]
    here = SourceCount(targets, max(piece.document.epoch for piece in row))
    stats = BatchStats(
        by_source=(*[SourceCount()] * row[0].document.source, here),
        tokens=sum(len(piece.tokens) for piece in row),
        documents=sum(len(document.tokens) > 0 for document in starting),
        truncated=sum(document.truncated for document in starting),
        skipped=sum(document.skipped for document in starting),
        repaired=sum(document.repaired for document in starting),
        keys=tuple(dict.fromkeys(p.document.key for p in row if len(p.tokens))),
        hash=hash_,
    )
    return RowStats(number, stats)


def combine(parts: Iterable[Iterable[Sequence]]) -> BatchStats:
    """Return what a batch holds, however its rows are spread over the parts.

    Args:
        parts: `LoadedBatch.rows` of each process, as they are or through JSON.
    """
    found = sorted(
        (number, BatchStats.from_json(stats)) for part in parts for number, stats in part
    )
    hashes = np.array([(number, stats.hash) for number, stats in found], "<u8")
    rows = [stats for _, stats in found]
    return BatchStats(
        by_source=_add([row.by_source for row in rows]),
        tokens=sum(row.tokens for row in rows),
        documents=sum(row.documents for row in rows),
        truncated=sum(row.truncated for row in rows),
        skipped=sum(row.skipped for row in rows),
        repaired=sum(row.repaired for row in rows),
        keys=tuple(dict.fromkeys(itertools.chain.from_iterable(row.keys for row in rows))),
        hash=xxhash.xxh3_64_intdigest(hashes.tobytes()),
    )


def _add(rows: Sequence[tuple[SourceCount, ...]]) -> tuple[SourceCount, ...]:
    of_each = itertools.zip_longest(*rows, fillvalue=SourceCount())
    return tuple(
        SourceCount(sum(row.targets for row in of_one), max(row.epoch for row in of_one))
        for of_one in of_each
    )
