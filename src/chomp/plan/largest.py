"""The largest microbatch that fits: found by a line through two programs, and then compiled."""

from collections.abc import Callable

from chomp.plan.sizes import Sizes

TRIES = 4
"""Programs that are compiled before the largest that did fit is taken."""
NEAR = 0.98
"""Of the memory: what fills as much is large enough."""
MOST = 1024
"""Rows on a device; a small model's row may need next to nothing."""


def largest_fitting(
    first: Sizes, measure: Callable[[int], Sizes], devices: int, limit: float
) -> Sizes | None:
    """Return the sizes of the program with the most rows that fit; None if not even one does.

    A device's memory is very nearly a line over its rows, since everything that grows with them
    grows alike. The line goes through the largest that is known to fit and the smallest that is
    known not to, or the two last; what it finds is compiled, and counts only if that fits.

    Args:
        first: sizes of the program that is there already.
        measure: compiles the program for so many rows on all devices together.
        devices: number of them that share the rows evenly.
        limit: bytes that a device has.
    """
    known = {first.rows // devices: first}

    def look(rows: int) -> Sizes:
        if rows not in known:
            known[rows] = measure(rows * devices)
        return known[rows]

    each = first.rows // devices
    look(2 * each if first.memory.total <= limit else max(1, each // 2))
    if len(known) == 1:
        return None  # one row each, and that is too much
    for _ in range(TRIES):
        fitting = [rows for rows, sizes in known.items() if sizes.memory.total <= limit]
        too_large = [rows for rows, sizes in known.items() if sizes.memory.total > limit]
        low, high = max(fitting, default=0), min(too_large, default=0)
        if high == low + 1 or (fitting and known[low].memory.total >= NEAR * limit):
            break
        guess = _on_the_line(known, limit)
        if fitting:
            guess = max(guess, low + 1)
        if too_large:
            guess = min(guess, high - 1)
        look(min(max(guess, 1), MOST))
    fitting = [rows for rows, sizes in known.items() if sizes.memory.total <= limit]
    return known[max(fitting)] if fitting else None


def _on_the_line(known: dict[int, Sizes], limit: float) -> int:
    """Return the rows at which the line through the two programs nearest to the limit meets it."""
    nearest = sorted(known, key=lambda rows: abs(known[rows].memory.total - limit))[:2]
    few, many = sorted(nearest)
    start = known[few].memory.total
    slope = (known[many].memory.total - start) / (many - few)
    return int(few + (limit - start) / slope) if slope > 0 else 2 * many
