"""The values that the parts of chomp hand to each other."""

import enum
from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

IGNORE_LABEL = -100
"""Label of a position that is not a target (the field's convention)."""
ROW_BITS = 32
"""The lower bits of a document's key: its row in the shard that the upper ones number."""


class Batch(NamedTuple):
    """The tokens of one optimizer step: the same shapes and dtypes at every step.

    `labels` are aligned with `input_ids` (the loss shifts: position i predicts i + 1) and are
    `IGNORE_LABEL` where a token is not a target. `segment_ids` number the documents of a row
    from 1; 0 is padding, where `attention_mask` is false.
    """

    input_ids: Int[Array | np.ndarray, "accum batch time"]
    labels: Int[Array | np.ndarray, "accum batch time"]
    segment_ids: Int[Array | np.ndarray, "accum batch time"]
    attention_mask: Bool[Array | np.ndarray, "accum batch time"]


class SourceCount(NamedTuple):
    """What a batch drew from one data source."""

    targets: int = 0
    """Labels that count in the loss (after the shift)."""
    epoch: int = 0
    """The latest pass over the source that a document is from, counted from 0."""


class BatchStats(NamedTuple):
    """What one batch drew from the corpus, counted on the host.

    Counts of skipped and repaired documents travel with the next good document, so that they
    reach the metrics with the batch that they belong to and survive a resume.
    """

    by_source: tuple[SourceCount, ...]
    """Of each entry of `data.sources`; those at the end that gave nothing may be left out. Without
    `data.sources` there is one."""
    tokens: int
    """Tokens that are not padding."""
    documents: int
    """Documents whose first token is in this batch."""
    truncated: int
    """Of these, documents cut at `data.tokenizer.max_doc_tokens`."""
    skipped: int
    """Documents left out (empty, or broken with `data.on_error: skip`)."""
    repaired: int
    """Documents whose invalid UTF-8 was replaced."""
    keys: tuple[int, ...]
    """The documents drawn, in row order: shard << 32 | row."""
    hash: int
    """64 bits from the rows' tokens, labels and segment ids: equal batches have equal ones."""

    @property
    def targets(self) -> int:
        """Labels that count in the loss (after the shift)."""
        return sum(source.targets for source in self.by_source)

    @property
    def epoch(self) -> int:
        """The latest pass over a source that a document is from, counted from 0."""
        return max((source.epoch for source in self.by_source), default=0)

    @classmethod
    def from_json(cls, values: Sequence[Any]) -> "BatchStats":
        """Return the stats whose values, as a list, have been through JSON."""
        stats = cls(*values)
        by_source = tuple(SourceCount(*count) for count in stats.by_source)
        return stats._replace(by_source=by_source, keys=tuple(stats.keys))


class RowStats(NamedTuple):
    """What one row of a batch drew. JSON-able."""

    row: int
    """Its number in the whole batch, [accum, batch] counted through."""
    stats: BatchStats
    """As if the row were a batch of its own."""


class LoadedBatch(NamedTuple):
    """One element of the training stream, or the part of it that a process reads."""

    batch: Batch
    stats: BatchStats
    """Of the rows in `batch`."""
    rows: tuple[RowStats, ...] = ()
    """Of each of these that isn't empty: those of all processes make the whole batch's stats."""


class Progress(NamedTuple):
    """How far a run has come, in exact counts that a resume continues."""

    step: int = 0
    batches: int = 0
    """Batches drawn: more than steps where some were left out."""
    tokens_seen: int = 0
    """Targets trained on."""
    docs_seen: int = 0
    docs_truncated: int = 0
    docs_skipped: int = 0
    docs_repaired: int = 0

    def after(self, stats: BatchStats) -> "Progress":
        """Return the counts after one more step, on the batch that `stats` describes."""
        return Progress(
            self.step + 1,
            self.batches + 1,
            self.tokens_seen + stats.targets,
            self.docs_seen + stats.documents,
            self.docs_truncated + stats.truncated,
            self.docs_skipped + stats.skipped,
            self.docs_repaired + stats.repaired,
        )

    def without_batch(self) -> "Progress":
        """Return the counts after a batch that was drawn and left out."""
        return self._replace(batches=self.batches + 1)


class ParameterKind(enum.Enum):
    """What a parameter of a model is."""

    PROJECTION = enum.auto()
    """A matrix that activations are multiplied by: Muon's, and with weight decay."""
    HEAD = enum.auto()
    """A projection that gives a score for each token."""
    EMBEDDING = enum.auto()
    """A vector for each token: with weight decay, and not Muon's."""
    OTHER = enum.auto()
    """Biases, norms and what else is no such matrix: without weight decay."""


class TrainState(eqx.Module):
    """All that the training step reads and writes."""

    params: PyTree[Float[Array, "..."]]
    opt_state: PyTree
    step: Int[Array, ""]
    """Finished steps."""
    rejected: Int[Array, ""]
    """Steps whose update was not applied because loss or gradients were not finite."""
    key: PRNGKeyArray
    """Root of the run's dropout keys; never changes."""
    average: PyTree[Float[Array, "..."]] | None = None
    """Averaged parameters in float32, with `train.ema`; the step itself neither reads nor writes
    them."""


class StepMetrics(NamedTuple):
    """What a training step reports; stays on the device until somebody reads it."""

    loss: Float[Array, ""]
    """Nats per target."""
    grad_norm: Float[Array, ""]
    """Global norm of the gradient before clipping."""
    targets: Int[Array, ""]
    rejected: Int[Array, ""]
    """Rejected updates so far in the run."""
    layer_norms: Float[Array, "kind layer"] | None = None
    """Of gradients before clipping, of what the update has changed, and of the parameters before
    it, with `logging.watch`."""
