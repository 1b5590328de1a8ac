"""A program's figures for people to read."""

from collections.abc import Iterable, Iterator, Mapping

from rich.table import Table

from chomp.hlo.figures import Figures, Row

GB = 1e9
MILLISECONDS = 1e3
SHOWN = 20
"""Source lines in a table."""
CAUTION = (
    "estimated: every operation takes the longest of its launch (2.5 us), its bytes (75% of the "
    "bandwidth) and its products (60% of the peak); a wait of the host 25 us: +-40%, "
    "1.1 times too low for the one step measured. What is counted is exact."
)


def totals_table(columns: Mapping[str, Figures]) -> Table:
    """Return a row for each figure, and a column for each program by its title."""
    table = _table("a step", *columns)
    rows = {title: dict(_totals(found)) for title, found in columns.items()}
    for name in next(iter(rows.values())):
        table.add_row(name, *(values[name] for values in rows.values()))
    return table


def _totals(found: Figures) -> Iterator[tuple[str, str]]:
    runs, memory = found.program.executions, found.program.memory
    yield "operations", f"{runs.operations:,.0f}"
    if runs.exact:
        yield "  launched one by one", f"{runs.launches:,.0f}"
        yield "  in CUDA graphs", f"{runs.nodes:,.0f} in {runs.graphs:,.0f}"
    yield "waits of the host", f"{runs.waits:,.0f}"
    yield "loops, of unknown length", f"{runs.loops}, {runs.unknown_loops}"
    yield "temporaries, GB", f"{memory.temp_size_in_bytes / GB:.2f}"
    yield "arguments, GB", f"{memory.argument_size_in_bytes / GB:.2f}"
    yield "bytes moved, GB", f"{found.moved / GB:,.1f}"
    kinds = {"bf16": "bfloat16", "tf32": "TF32", "f32": "float32", "kernel": "Pallas kernels"}
    for kind, name in kinds.items():
        yield f"products in {name}, TFLOP", f"{found.flops(kind) / 1e12:,.2f}"
    if found.messages:
        sent = sum(one.times * one.sent for one in found.messages)
        yield "sent by a device, GB", f"{sent / GB:,.3f}"
    atomics = found.program.float_atomics
    yield "kernels that add by atomics", "?" if atomics is None else str(atomics)
    yield "estimated ms", f"{found.seconds * MILLISECONDS:,.0f}"
    bounds = found.bounds
    for bound in ("launches", "bandwidth", "products", "communication", "host waits"):
        yield f"  bound by {bound}", f"{bounds.get(bound, 0) * MILLISECONDS:,.0f}"


def parts_table(found: Figures) -> Table:
    """Return what each part of the model costs."""
    return _rows("part", found.parts, found.seconds)


def lines_table(found: Figures) -> Table:
    """Return what the longest source lines cost."""
    return _rows("source line", found.lines[:SHOWN], found.seconds)


def _rows(title: str, rows: Iterable[Row], seconds: float) -> Table:
    table = _table(title, "operations", "GB moved", "TFLOP", "estimated ms", "share", "bound by")
    for row in rows:
        table.add_row(
            row.name,
            f"{row.operations:,.0f}",
            f"{row.moved / GB:,.1f}",
            f"{row.flops / 1e12:,.2f}",
            f"{row.seconds * MILLISECONDS:,.1f}",
            f"{row.seconds / seconds:.0%}",
            max(row.bounds, key=lambda bound: row.bounds[bound]),
        )
    return table


def float32_table(found: Figures) -> Table:
    """Return the products that aren't made in half as wide types, the same ones in one row."""
    table = _table("product in", "factors", "where", "TFLOP")
    alike: dict[tuple[str, str, str], float] = {}
    for product, place, flops in found.float32_products:
        shapes = " x ".join(str(list(shape)) for shape in product.shapes)
        key = (product.precision, shapes, place.line)
        alike[key] = alike.get(key, 0) + flops
    for key, flops in list(alike.items())[:SHOWN]:
        table.add_row(*key, f"{flops / 1e12:,.3f}")
    return table


def _table(*titles: str) -> Table:
    table = Table()
    for place, title in enumerate(titles):
        table.add_column(title, no_wrap=True, justify="left" if place == 0 else "right")
    return table
