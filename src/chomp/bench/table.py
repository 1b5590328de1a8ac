"""Measured values as a table for people."""

from collections.abc import Mapping, Sequence

from rich.table import Table

from chomp.bench.spread import Spread

# By the end of a value's name.
_UNITS = {"_seconds": (1.0, " s"), "_bytes": (1e-6, " MB"), "_flops": (1e-9, " GFLOP/s")}


def table(values: Mapping[str, object], others: Sequence[str]) -> Table:
    """Return a row for each value, and a column for each of `others` in whose name it is there.

    Args:
        values: by name; a value of another program has that one's name and `_` in front.
        others: names of the other programs.
    """
    result = Table()
    for title in ("", *(["this config", *others] if others else ["measured"])):
        result.add_column(title, no_wrap=True)
    theirs = tuple(f"{other}_" for other in others)
    for name, value in values.items():
        if not (theirs and name.startswith(theirs)):
            row = [value, *(values.get(prefix + name) for prefix in theirs)]
            result.add_row(name, *("" if cell is None else _text(name, cell) for cell in row))
    return result


def _text(name: str, value: object) -> str:
    ending = next((ending for ending in _UNITS if name.endswith(ending)), None)
    factor, unit = _UNITS[ending] if ending else (1.0, "")
    if isinstance(value, Spread):
        parts = (value.median, value.lowest, value.lower_quartile, value.upper_quartile)
        median, lowest, lower, upper = (f"{part * factor:,.4g}" for part in parts)
        return f"{median}{unit}\n  least {lowest}, quartiles {lower} to {upper}"
    if isinstance(value, int | float):
        return _number(value * factor) + unit
    return str(value)


def _number(value: float) -> str:
    if isinstance(value, int) or abs(value) >= 10_000:
        return f"{value:,.0f}"
    return f"{value:.6g}"
