"""The evaluation set: every target of its documents is scored exactly once."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from chomp.data.batching import BatchSpec, make_batch
from chomp.data.packing import PackedRow, Segment, TokenizedDocument, pack_best_fit
from chomp.data.row_stats import count_targets
from chomp.data.tokenizers.base import Tokenizer
from chomp.errors import DataError
from chomp.types import Batch


class EvaluationSet:
    """Documents held out from training (or of a split of their own), as batches.

    A document that needs several rows is cut into pieces that overlap by one token, whose label
    is masked where it is repeated: each token but a document's first is a target exactly once.

    Args:
        load: reads and encodes the documents; called when they are first needed.
        tokenizer: theirs and the training's.
        layout: shape of the whole batches; `accum` must be 1.
        best_fit: pack whole pieces, best fit; else fill rows in order.
        max_pieces: most pieces in a row; None for no limit.
        rows: those that `batches` gives of each batch; None: all.
    """

    def __init__(
        self,
        load: Callable[[], Sequence[TokenizedDocument]],
        tokenizer: Tokenizer,
        layout: BatchSpec,
        *,
        best_fit: bool,
        max_pieces: int | None,
        rows: range | None = None,
    ):
        self._load = load
        self._tokenizer = tokenizer
        self._layout = layout._replace(mask_boundaries=True)
        self._best_fit = best_fit
        self._max_pieces = max_pieces
        self._local = range(layout.batch) if rows is None else rows

    @cached_property
    def _encoded(self) -> Sequence[TokenizedDocument]:
        return self._load()

    @cached_property
    def _rows(self) -> list[PackedRow]:
        time = self._layout.time
        if self._best_fit:
            pieces = [p for document in self._encoded for p in cut_overlapping(document, time)]
            return pack_best_fit(pieces, time, self._max_pieces)
        return fill_overlapping(self._encoded, time)

    def batches(self) -> Iterator[Batch]:
        """Yield the rows asked for of each batch, [1, rows, time]; padding fills up the last."""
        yield from self._batches(self._local)

    def _batches(self, rows: range) -> Iterator[Batch]:
        layout = self._layout._replace(batch=len(rows))
        for at in range(0, len(self._rows), self._layout.batch):
            yield make_batch(self._rows[at + rows.start : at + rows.stop], layout)

    def prepare(self) -> None:
        """Read and encode the documents. Raises DataError if they give nothing to predict."""
        _ = self.targets, self.bytes

    @cached_property
    def documents(self) -> int:
        """Documents in the set, those too short to be scored included."""
        return len(self._encoded)

    # Plain properties over the cached values: a checker doesn't match cached ones with protocols.
    @property
    def targets(self) -> int:
        """Tokens that are scored in one pass. Raises DataError if there are none."""
        return self._targets

    @property
    def bytes(self) -> int:
        """UTF-8 bytes of the scored tokens' text."""
        return self._bytes

    @cached_property
    def _targets(self) -> int:
        batches = self._batches(range(self._layout.batch))
        targets = sum(count_targets(np.asarray(batch.labels)) for batch in batches)
        if targets == 0:
            raise DataError(
                f"the evaluation set's {self.documents} documents hold no token to predict"
            )
        return targets

    @cached_property
    def _bytes(self) -> int:
        total = sum(
            scored_bytes(document.tokens.tolist(), self._tokenizer, self._layout)
            for document in self._encoded
        )
        if total == 0:
            raise DataError(
                f"the evaluation set's {self.documents} documents have no text but their first "
                "tokens: there are no bits per byte; give longer documents"
            )
        return total


class EvaluationSets(NamedTuple):
    """All that a run is evaluated on."""

    sources: Mapping[str, EvaluationSet]
    """Of each entry of `data.sources`; without these there is one, with an empty name."""
    others: Mapping[str, EvaluationSet]
    """Those of `data.eval_sets`, which don't count in the total."""

    @property
    def named(self) -> dict[str, EvaluationSet]:
        """All sets with a name, by it."""
        return {name: each for name, each in {**self.sources, **self.others}.items() if name}

    @property
    def documents(self) -> int:
        """Documents of the sources."""
        return sum(each.documents for each in self.sources.values())

    @property
    def targets(self) -> int:
        """Tokens of the sources that are scored in one pass."""
        return sum(each.targets for each in self.sources.values())

    def prepare(self) -> None:
        """Read and encode the documents. Raises DataError if a set gives nothing to predict."""
        for name, each in {**self.sources, **self.others}.items():
            try:
                each.prepare()
            except DataError as error:
                raise DataError(f"{name}: {error}" if name else str(error)) from error


def scored_bytes(
    tokens: Sequence[int], tokenizer: Tokenizer, layout: BatchSpec, start: int = 1
) -> int:
    """Return the UTF-8 bytes of the text of those of a document's tokens that are targets.

    Args:
        tokens: the document's from its first one on.
        tokenizer: theirs.
        layout: says whether end tokens are targets.
        start: the first token that counts.
    """
    count, eos = tokenizer.byte_count, layout.eos_id
    # A first token takes what else the text begins with: a difference counts that as well.
    scored = count(tokens) - count(tokens[:start])
    if layout.train_on_eos or eos not in tokens[start:]:
        return scored
    # A byte, where it isn't a control.
    return scored - list(tokens[start:]).count(eos) * count([eos])


def cut_overlapping(document: TokenizedDocument, time: int) -> list[Segment]:
    """Cut a document into pieces of at most `time` tokens, each starting with the last's end."""
    return [
        Segment(document.tokens[at : at + time], document, starts=at == 0)
        for at in range(0, len(document.tokens) - 1, time - 1)
    ]


def fill_overlapping(documents: Sequence[TokenizedDocument], time: int) -> list[PackedRow]:
    """Fill rows one after the other, cutting documents at a row's end with one token's overlap."""
    rows: list[PackedRow] = []
    room = 0
    for document in documents:
        at = 0
        while at < len(document.tokens) - 1:
            if room < 2:  # one token alone predicts nothing
                rows.append([])
                room = time
            tokens = document.tokens[at : at + room]
            rows[-1].append(Segment(tokens, document, starts=at == 0))
            room -= len(tokens)
            at += len(tokens) - 1
    return rows
