"""Documents of some steps of a run, from its ledger."""

from typing import Any

import numpy as np

from chomp.errors import ChompError
from chomp.report.run_view import RunView
from chomp.run.ledger_search import find_entry
from chomp.run.lineage import trained_by
from chomp.run.run_folder import RunFolder

MOST_STEPS, STEPS_WITH_TEXTS = 200, 12
MOST_DOCUMENTS = 100
"""Of a step."""


def documents_of(view: RunView, *, texts: bool) -> dict[str, Any]:
    """Return the documents of the steps that are most likely asked about.

    These are the newest step, those where the loss jumped most, and some evenly between.

    Args:
        view: of the run.
        texts: read the first words of each document.
    """
    found, problem = [], None
    for step in telling_steps(view, STEPS_WITH_TEXTS if texts else MOST_STEPS):
        try:
            found.append(step_with_texts(view, step) if texts else step_without_texts(view, step))
        except ChompError as error:
            problem = str(error)
    return {"steps": [entry for entry in found if entry], "problem": problem, "texts": texts}


def telling_steps(view: RunView, most: int) -> list[int]:
    """Return steps of rows, ascending: half of them where the loss was most above its neighbours'.

    A row's loss is that of its own step.
    """
    columns = view.metrics.columns
    steps, loss = columns["step"], columns.get("loss", np.zeros(0))
    if len(steps) == 0 or len(loss) == 0:
        return []
    loss = np.nan_to_num(loss, nan=np.inf)
    with np.errstate(invalid="ignore"):
        jumps = np.nan_to_num(np.diff(loss, prepend=loss[0]))
    largest = np.argsort(-jumps)[: most // 2]
    evenly = np.linspace(0, len(steps) - 1, most - len(largest)).astype(int)
    return sorted({int(steps[row]) for row in (*largest, *evenly)} - {0})


def step_without_texts(view: RunView, step: int) -> dict[str, Any] | None:
    """Return the shards and rows that a step was trained on; None if no ledger has it.

    Raises:
        ChompError: the ledger, or the record of the run, is broken.
    """
    ledger = trained_by(RunFolder(view.path), step).ledger
    entry = find_entry(ledger, step).entry if ledger.is_file() else None
    if entry is None:
        return None
    places = entry.docs[:MOST_DOCUMENTS]
    documents = [{"source": f"shard {shard}", "row": row, "text": None} for shard, row in places]
    return _values(entry, len(entry.docs), documents)


def step_with_texts(view: RunView, step: int) -> dict[str, Any]:
    """Return the documents that a step was trained on, with their first words.

    Raises:
        ChompError: the step isn't in the ledger, or its documents can't be read.
    """
    from chomp.commands.trace import trace  # what it needs of the data takes seconds to import

    found = trace(view.path, step)
    documents = [
        {"source": each.source, "row": each.row, "text": each.text or f"({each.problem})"}
        for each in found.documents[:MOST_DOCUMENTS]
    ]
    return _values(found, len(found.documents), documents)


def _values(entry: Any, count: int, documents: list[dict[str, Any]]) -> dict[str, Any]:
    named = {name: getattr(entry, name) for name in ("step", "batch", "hash", "tokens", "targets")}
    return named | {"count": count, "documents": documents}
