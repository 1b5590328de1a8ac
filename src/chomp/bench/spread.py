"""Repeated measurements, and what is said of them."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Spread:
    """The middle of repeated measurements and how far they lie apart."""

    median: float
    lowest: float
    lower_quartile: float
    upper_quartile: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Return the spread of at least one value."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0], values[0], 1)
        lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, min(values), lower, upper, len(values))


def as_json(values: Mapping[str, object]) -> dict[str, object]:
    """Return values ready for JSON: the median under a spread's name, the rest beside it."""
    flat: dict[str, object] = {}
    for name, value in values.items():
        if isinstance(value, Spread):
            flat[name] = value.median
            flat[f"{name}_spread"] = asdict(value)
        else:
            flat[name] = value
    return flat
