"""A comparison as lines for the user."""

from collections.abc import Iterator

from chomp.report.compare import Comparison
from chomp.report.significance import PairedTest
from chomp.system.terminal import one_line


def compare_lines(found: Comparison) -> list[str]:
    """Return what a person reads of it."""
    return [one_line(line) for line in _lines(found)]


def _lines(found: Comparison) -> Iterator[str]:
    a, b = found.runs
    yield f"A  {a}"
    yield f"B  {b}"
    yield ""
    yield "configuration" if found.differences else "configuration: no value differs"
    width = max((len(each.key) for each in found.differences), default=0)
    for each in found.differences:
        yield f"  {each.key:<{width}}  A {each.first!r}, B {each.second!r}"
    if found.losses:
        yield ""
        yield "training loss at equal tokens, mean since the line before"
        yield f"{'tokens':>16} {'A':>10} {'B':>10} {'A - B':>10}"
        for tokens, one, two in found.losses:
            yield f"{tokens:>16,} {_number(one)} {_number(two)} {_difference(one, two)}"
    for key in dict.fromkeys(line.key for line in found.evaluations):
        yield ""
        yield f"{key} at equal tokens"
        yield f"{'tokens':>16} {'A':>10} {'B':>10} {'A - B':>10}"
        for line in found.evaluations:
            if line.key == key:
                about = " (B: between its evaluations)" if line.interpolated else ""
                yield (
                    f"{line.tokens:>16,} {_number(line.first)} {_number(line.second)} "
                    f"{_difference(line.first, line.second)}{about}"
                )
    if found.batches or found.documents:
        yield ""
        yield "is it chance?"
    if found.batches:
        what = f"nats per token on the same {found.batches.pairs} batches, the newest both logged"
        yield from _test(found.batches, what)
    if found.documents:
        what = f"bits per byte on the same {found.documents.pairs} evaluation documents"
        yield from _test(found.documents, what)
    if found.notes:
        yield ""
    for note in found.notes:
        yield f"note: {note}"


def _test(test: PairedTest, what: str) -> Iterator[str]:
    better = "A" if test.difference < 0 else "B"
    verdict = f"{better} is better" if test.is_sure else "no sign of a difference"
    yield (
        f"  {what}: A - B {test.difference:+.4f} (95% from {test.low:+.4f} to {test.high:+.4f}), "
        f"p = {test.p:.4f}: {verdict}"
    )


def _number(value: float | None) -> str:
    return f"{'-':>10}" if value is None else f"{value:10.4f}"


def _difference(one: float | None, two: float | None) -> str:
    return f"{'-':>10}" if one is None or two is None else f"{one - two:+10.4f}"
