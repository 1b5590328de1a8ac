"""Two runs of one configuration compared: what each wrote, and what each ended with."""

import json
from collections.abc import Iterator
from typing import Any

from chomp.commands.checkpoint_diff import difference
from chomp.errors import ResumeError
from chomp.proof.trial import Trial

MEASURED = frozenset(
    {
        "tokens_per_sec",
        "step_time_s",
        "data_wait_share",
        "first_step_compile_time_s",
        "peak_memory_gb",
        "device_memory_gb",
        "mfu",
        "fraction_of_matmul_bound",
        "read_retries",
    }
)
"""Values of a row that the clock or the machine decides."""
FILES = ("ledger.jsonl", "metrics.jsonl", "samples.jsonl")
Row = dict[str, Any]


def differences(straight: Trial, killed: Trial) -> Iterator[str]:
    """Yield a line for whatever differs: steps first, in their order, then the final state."""
    tables = [(name, _by_step(straight.rows(name)), _by_step(killed.rows(name))) for name in FILES]
    for step in sorted({step for _, *sides in tables for side in sides for step in side}):
        for name, wanted, found in tables:
            yield from _rows(f"step {step}, {name}", wanted.get(step, []), found.get(step, []))
    for name, wanted, found in tables:
        if [*wanted] != [*found] and sorted(wanted) == sorted(found):
            yield f"{name}: rows are in another order"
    try:
        for line in difference(straight.folder.path, None, killed.folder.path, None):
            yield f"final state, {line}"
    except ResumeError as error:
        yield f"final state: {error}"


def _by_step(rows: list[Row]) -> dict[int, list[Row]]:
    found: dict[int, list[Row]] = {}
    for row in rows:
        found.setdefault(row["step"], []).append(row)
    return found


def _rows(place: str, wanted: list[Row], found: list[Row]) -> Iterator[str]:
    if len(wanted) != len(found):
        yield f"{place}: {len(found)} rows, straight {len(wanted)}"
        return
    for one, other in zip(wanted, found, strict=True):
        for key in dict.fromkeys([*one, *other]):
            left, right = _text(one, key), _text(other, key)
            if key not in MEASURED and left != right:
                yield f"{place}: {key} is {right}, straight {left}"


def _text(row: Row, key: str) -> str:
    """Return what is equal for the same bits only: 0.0 and -0.0 differ, NaN is NaN."""
    return json.dumps(row[key]) if key in row else "missing"
