"""Scores of documents: packed together as in training, or one by one."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from chomp.config import Config
from chomp.data import BatchSpec, Tokenizer
from chomp.data.batching import make_batch
from chomp.data.evaluation import cut_overlapping, scored_bytes
from chomp.data.packing import TokenizedDocument
from chomp.data.pipeline import evaluation_set
from chomp.trainer.program import TrainProgram
from chomp.trainer.score import Score, sum_losses


class DocumentScorer:
    """Scores documents as an evaluation in training does, in rows of `train.seq_len` tokens.

    Args:
        config: of the run, fitted to the tokenizer.
        tokenizer: the documents'.
        program: has the loss.
        params: of the model.
        layout: of training batches.
    """

    def __init__(
        self,
        config: Config,
        tokenizer: Tokenizer,
        program: TrainProgram,
        params: Any,
        layout: BatchSpec,
    ):
        self._data, self._tokenizer = config.data, tokenizer
        self._program, self._params = program, params
        self._layout = layout._replace(accum=1, mask_boundaries=True)

    def score(self, documents: Sequence[TokenizedDocument]) -> Score:
        """Score all of them, packed as evaluation batches are.

        Raises:
            DataError: they give nothing to predict.
        """
        packed = evaluation_set(self._data, self._tokenizer, self._layout, lambda: documents)
        packed.prepare()
        nats, targets = sum_losses(
            self._program.summed_loss(self._params, batch) for batch in packed.batches()
        )
        return Score(nats, targets, packed.bytes)

    def score_each(
        self, documents: Iterable[TokenizedDocument]
    ) -> Iterator[tuple[TokenizedDocument, Score]]:
        """Yield each document that has a target with its score: no other is in its rows."""
        layout = self._layout._replace(batch=1)
        for document in documents:
            pieces = cut_overlapping(document, layout.time)
            nats, targets = sum_losses(
                self._program.summed_loss(self._params, make_batch([[piece]], layout))
                for piece in pieces
            )
            if targets:
                size = scored_bytes(document.tokens.tolist(), self._tokenizer, layout)
                yield document, Score(nats, targets, size)
