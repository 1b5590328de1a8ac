"""Two runs compared: configuration, losses at equal tokens, and whether these differ by chance."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from chomp.report.metrics_file import Columns
from chomp.report.run_view import RunView, flat
from chomp.report.significance import LEAST_PAIRS, PairedTest, paired_test
from chomp.report.write import names_of

PARTS = 10
"""Lines of the table of losses."""
NEWEST, MOST_PAIRS = 4, 200
"""Of the steps that both runs took on the same batch the newest quarter, at most so many."""
EVALUATIONS = ("eval_loss", "eval_bits_per_byte")
WHERE = ("logging.run_dir", "logging.metrics_file", "logging.log_file", "checkpoint.root_dir")
"""Keys that say where a run is, not what it does."""


class Difference(NamedTuple):
    """A value of the configuration that differs; None where a run has no such key."""

    key: str
    first: Any
    second: Any


class LossLine(NamedTuple):
    """Mean training losses of both runs between the line before and so many tokens."""

    tokens: int
    first: float | None
    second: float | None


class EvaluationLine(NamedTuple):
    """Scores of both runs after so many tokens."""

    key: str
    tokens: int
    first: float
    second: float
    interpolated: bool
    """Whether the second run's is from the line between its evaluations before and after."""


@dataclass(frozen=True)
class Comparison:
    """Two runs compared.

    Attributes:
        runs: names.
        differences: of the configurations.
        losses: at equal tokens.
        evaluations: at equal tokens.
        batches: test of the newest losses on equal batches; None without enough of these.
        documents: test of the bits per byte of the evaluation documents; None where they weren't
            scored.
        notes: what the reader must know.
    """

    runs: tuple[str, str]
    differences: Sequence[Difference]
    losses: Sequence[LossLine]
    evaluations: Sequence[EvaluationLine]
    batches: PairedTest | None
    documents: PairedTest | None
    notes: Sequence[str]

    def as_values(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "runs": self.runs,
            "differences": [each._asdict() for each in self.differences],
            "losses": [each._asdict() for each in self.losses],
            "evaluations": [each._asdict() for each in self.evaluations],
            "batches": self.batches and self.batches._asdict(),
            "documents": self.documents and self.documents._asdict(),
            "notes": self.notes,
        }


class DocumentScore(NamedTuple):
    """Score of a document."""

    bits_per_byte: float
    bytes: int


Scores = dict[str, DocumentScore]
"""By the document's place."""


def compare(paths: Sequence[Path], scores: Sequence[Scores] = ()) -> Comparison:
    """Compare two runs.

    Args:
        paths: their folders.
        scores: of their evaluation documents, where these were scored.

    Raises:
        ResumeError: a folder holds no run, or its metrics can't be read.
    """
    first, second = (
        RunView(path, name, texts=("batch_hash",))
        for path, name in zip(paths, names_of(paths), strict=True)
    )
    differences = config_differences(first.config, second.config)
    columns = first.metrics.columns, second.metrics.columns
    notes = []
    if any(found.key.startswith("data.tokenizer.") for found in differences):
        notes.append(
            "the tokenizers may differ: then losses per token can't be compared, bits per byte can"
        )
    batches = same_batches(*columns)
    if batches is None:
        notes.append(
            f"the runs logged fewer than {LEAST_PAIRS} steps on the same batches: no test of these"
        )
    documents = None
    if scores:
        documents, note = same_documents(*scores)
        notes += [note] if note else []
    else:
        notes.append(
            "whether the evaluations differ by more than chance takes the scores of single "
            "documents, which a run doesn't keep: --evaluate makes them"
        )
    return Comparison(
        (first.name, second.name),
        differences,
        losses_at_equal_tokens(*columns),
        evaluations_at_equal_tokens(*columns),
        batches,
        documents,
        notes,
    )


def config_differences(first: dict[str, Any], second: dict[str, Any]) -> list[Difference]:
    """Return the values that differ, but for those that say where a run is, or are derived."""
    one, two = (
        {key: value for key, value in flat(config) if not key.startswith("derived.")}
        for config in (first, second)
    )
    return [
        Difference(key, one.get(key), two.get(key))
        for key in dict.fromkeys([*one, *two])
        if one.get(key) != two.get(key) and key not in WHERE
    ]


def losses_at_equal_tokens(first: Columns, second: Columns) -> list[LossLine]:
    """Return the mean training loss of both runs in equal parts of the tokens that both have."""
    ends = [_last_tokens(columns) for columns in (first, second)]
    if None in ends:
        return []
    edges = np.linspace(0, min(end for end in ends if end is not None), PARTS + 1)
    means = [_means(columns, edges) for columns in (first, second)]
    return [LossLine(round(edge), *pair) for edge, *pair in zip(edges[1:], *means, strict=True)]


def _last_tokens(columns: Columns) -> float | None:
    tokens, _ = _values(columns, "loss")
    return float(tokens[-1]) if len(tokens) else None


def _values(columns: Columns, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the tokens and values of the rows that have a value."""
    if key not in columns or "tokens_seen" not in columns:
        return np.zeros(0), np.zeros(0)
    there = ~np.isnan(columns[key]) & ~np.isnan(columns["tokens_seen"])
    return columns["tokens_seen"][there], columns[key][there]


def _means(columns: Columns, edges: np.ndarray) -> list[float | None]:
    tokens, loss = _values(columns, "loss")
    bounds = np.searchsorted(tokens, edges, side="right")
    return [
        float(loss[begin:end].mean()) if end > begin else None for begin, end in pairwise(bounds)
    ]


def evaluations_at_equal_tokens(first: Columns, second: Columns) -> list[EvaluationLine]:
    """Return the newest evaluations of the first run with those of the second at equal tokens."""
    found = []
    keys = [key for key in first if key.split("/")[0] in EVALUATIONS and key in second]
    for key in keys:
        tokens, ours = _values(first, key)
        others, theirs = _values(second, key)
        if not len(others):
            continue
        inside = (tokens >= others[0]) & (tokens <= others[-1])
        found += [
            EvaluationLine(
                key,
                int(at),
                float(value),
                float(np.interp(at, others, theirs)),
                bool(at not in others),
            )
            for at, value in list(zip(tokens[inside], ours[inside], strict=True))[-PARTS:]
        ]
    return found


def same_batches(first: Columns, second: Columns) -> PairedTest | None:
    """Test the losses of the newest steps that both runs took on the same batch."""
    if not all({"loss", "batch_hash"} <= columns.keys() for columns in (first, second)):
        return None
    _, ours, theirs = np.intersect1d(first["step"], second["step"], return_indices=True)
    same = (first["batch_hash"][ours] == second["batch_hash"][theirs]) & (
        first["batch_hash"][ours] != ""
    )
    one, two = first["loss"][ours[same]], second["loss"][theirs[same]]
    there = ~np.isnan(one) & ~np.isnan(two)
    count = min(MOST_PAIRS, max(LEAST_PAIRS, there.sum() // NEWEST))
    one, two = one[there][-count:], two[there][-count:]
    return paired_test(one, two, np.ones(len(one)))


def same_documents(first: Scores, second: Scores) -> tuple[PairedTest | None, str | None]:
    """Test the bits per byte of the documents that both runs were evaluated on, weighted by size.

    Returns:
        the test, None where it can't be made; and what is to be said of it.
    """
    shared = [place for place in first if place in second]
    test = paired_test(
        np.array([first[place].bits_per_byte for place in shared]),
        np.array([second[place].bits_per_byte for place in shared]),
        np.array([float(first[place].bytes) for place in shared]),
    )
    if test is None:
        return None, (
            f"only {len(shared)} evaluation documents are the same in both runs: their scores "
            "can't be paired"
        )
    left = len(first) + len(second) - 2 * len(shared)
    return test, f"{left} documents of only one of the runs are left out" if left else None
