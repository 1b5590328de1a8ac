"""Columns of metrics as curves that a page can draw, however many rows there are."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

MOST_POINTS = 2000
"""Points of a curve up to which each is drawn."""
BUCKETS = 1200
"""Parts that the rows of a longer one are divided into."""


class Axes(NamedTuple):
    """What a curve can be drawn over; one value for each row."""

    step: Float[np.ndarray, "row"]
    tokens: Float[np.ndarray, "row"]
    """Targets trained on."""
    time: Float[np.ndarray, "row"]
    """Seconds of steps: without evaluation, samples, saving, starts, and what lies between."""
    flops: Float[np.ndarray, "row"] | None
    """Model FLOPs of the steps; None where the model's aren't known."""

    def at(self, rows: Int[np.ndarray, "some"]) -> dict[str, list[float] | None]:
        """Return the values at some rows by name."""
        return {
            name: None if values is None else values[rows].tolist()
            for name, values in self._asdict().items()
        }


def axes_of(columns: Mapping[str, np.ndarray], flops_per_step: float | None) -> Axes:
    """Return the axes for all rows, which ascend by step."""
    steps = columns["step"]
    done = np.diff(steps, prepend=0.0)
    seconds = np.nan_to_num(columns.get("step_time_s", np.zeros_like(steps)))
    tokens = columns.get("tokens_seen", np.full_like(steps, np.nan))
    known = ~np.isnan(tokens)
    if not known.all():
        tokens = np.interp(steps, steps[known], tokens[known]) if known.any() else 0 * steps
    flops = None if flops_per_step is None else steps * flops_per_step
    return Axes(steps, tokens, np.cumsum(done * seconds), flops)


def curves(
    columns: Mapping[str, np.ndarray], axes: Axes, first: int = 0
) -> dict[str, dict[str, Any]]:
    """Return the curves of all columns from row `first` on, as JSON values.

    `axes` has the points that there are, `series` for each key the numbers of its points (`at`)
    and its values (`mean`). Of more than `MOST_POINTS` values neighbours are put together: `mean`
    then is theirs, and `min` and `max` the least and the largest; the last value stands alone.

    Args:
        columns: at least `step`.
        axes: for all rows.
        first: number of a row.
    """
    series: dict[str, dict[str, np.ndarray]] = {}
    for key, column in columns.items():
        if key in ("step", "tokens_seen") or column.dtype == object:
            continue
        rows = first + np.flatnonzero(~np.isnan(column[first:]))
        if len(rows):
            series[key] = _series(column, rows)
    at = [each["at"] for each in series.values()]
    points = np.unique(np.concatenate(at)) if at else np.zeros(0, int)
    for each in series.values():
        each["at"] = np.searchsorted(points, each["at"])
    return {
        "axes": axes.at(points),
        "series": {
            key: {name: values.tolist() for name, values in each.items()}
            for key, each in series.items()
        },
    }


def _series(
    column: Float[np.ndarray, "row"], rows: Int[np.ndarray, "some"]
) -> dict[str, np.ndarray]:
    values = column[rows]
    if len(values) <= MOST_POINTS:
        return {"at": rows, "mean": values}
    edges = np.append(np.linspace(0, len(values) - 1, BUCKETS, endpoint=False), len(values) - 1)
    edges = edges.astype(int)
    sizes = np.diff(edges, append=len(values))
    return {
        "at": rows[edges + (sizes - 1) // 2],
        "mean": np.add.reduceat(values, edges) / sizes,
        "min": np.minimum.reduceat(values, edges),
        "max": np.maximum.reduceat(values, edges),
    }


def last_values(columns: Mapping[str, np.ndarray]) -> dict[str, tuple[int, float]]:
    """Return the step and the value of the newest row that has a value, by key."""
    found = {}
    for key, column in columns.items():
        if column.dtype != object and len(rows := np.flatnonzero(~np.isnan(column))):
            found[key] = (int(columns["step"][rows[-1]]), float(column[rows[-1]]))
    return found
