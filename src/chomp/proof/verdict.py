"""Two runs of one configuration compared: what each wrote, and what each ended with."""

from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

from chomp.commands.checkpoint_diff import difference
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


def differences(straight: Trial, killed: Trial) -> Iterator[str]:
    """Yield a line for whatever differs: steps first, in their order, then samples and state."""
    settings = ("metrics.jsonl", "step"), ("ledger.jsonl", "step"), ("samples.jsonl", "sample")
    for name, what in settings:
        pairs = zip_longest(straight.rows(name), killed.rows(name))
        for number, (wanted, found) in enumerate(pairs, 1):
            yield from _row(f"{name}, {what} {number}", wanted, found)
    yield from difference(straight.folder.path, None, killed.folder.path, None)


def _row(place: str, wanted: dict[str, Any] | None, found: dict[str, Any] | None) -> Iterator[str]:
    if wanted is None or found is None:
        yield f"{place}: only in the {'killed' if wanted is None else 'straight'} run"
        return
    for key in dict.fromkeys([*wanted, *found]):
        if key not in MEASURED and wanted.get(key) != found.get(key):
            yield f"{place}: {key} is {found.get(key)!r}, straight {wanted.get(key)!r}"
