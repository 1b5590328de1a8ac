"""The values that the parts of chomp hand to each other."""

from typing import Any, NamedTuple, Protocol

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

IGNORE_LABEL = -100
"""Label of a position that is not a target (the field's convention)."""


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


class BatchStats(NamedTuple):
    """What one batch drew from the corpus, counted on the host.

    Counts of skipped and repaired documents travel with the next good document, so that they
    reach the metrics with the batch that they belong to and survive a resume.
    """

    targets: int
    """Labels that count in the loss (after the shift)."""
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


class Drawn(NamedTuple):
    """One element of the training stream."""

    batch: Batch
    stats: BatchStats


class TrainState(eqx.Module):
    """All that the training step reads and writes."""

    params: PyTree[Float[Array, "..."] | None]
    opt_state: PyTree
    step: Int[Array, ""]
    key: PRNGKeyArray
