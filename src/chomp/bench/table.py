"""Measured values as a table for people."""

from collections.abc import Mapping

from rich.table import Table

from chomp.bench.spread import Spread

# By the end of a value's name.
_UNITS = {"_seconds": (1.0, " s"), "_bytes": (1e-6, " MB"), "_flops": (1e-9, " GFLOP/s")}


def table(values: Mapping[str, object], columns: Mapping[str, str]) -> Table:
    """Return a row for each name and a column for each program.

    Args:
        values: values by name; a program's begin with its prefix.
        columns: the programs' prefixes by title; the first has all values without a prefix.
    """
    result = Table()
    for title in ("", *columns):
        result.add_column(title, no_wrap=True)
    main = next(iter(columns))
    cells: dict[str, dict[str, str]] = {}
    for name, value in values.items():
        titles = (title for title, prefix in columns.items() if prefix and name.startswith(prefix))
        title = next(titles, main)
        row = name.removeprefix(columns[title])
        cells.setdefault(row, {})[title] = "" if value is None else _text(name, value)
    for row, texts in cells.items():
        result.add_row(row, *(texts.get(title, "") for title in columns))
    return result


def _text(name: str, value: object) -> str:
    ending = next((ending for ending in _UNITS if name.endswith(ending)), None)
    factor, unit = _UNITS[ending] if ending else (1.0, "")
    if isinstance(value, Spread):
        parts = (value.median, value.lowest, value.lower_quartile, value.upper_quartile)
        median, lowest, lower, upper = (_number(part * factor, 4) for part in parts)
        if value.count == 1:
            return median + unit
        return f"{median}{unit}\n  least {lowest}, quartiles {lower} to {upper}"
    if isinstance(value, int | float):
        return _number(value * factor, 6) + unit
    return str(value)


def _number(value: float, digits: int) -> str:
    if isinstance(value, int) or abs(value) >= 10_000:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"
