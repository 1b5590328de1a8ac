"""JSON from outside, in which whatever is wrong is a ValueError; and JSON for others."""

import json
from typing import Any


def finite_json(value: Any, **style: Any) -> str:
    """Return a value as JSON, in which numbers that aren't finite are null: JSON has none."""
    try:
        return json.dumps(value, allow_nan=False, **style)
    except ValueError:
        finite = json.loads(json.dumps(value), parse_constant=lambda _: None)
        return json.dumps(finite, allow_nan=False, **style)


def parse_json(text: str | bytes) -> Any:
    """Return the value that a text of JSON stands for.

    Raises:
        ValueError: it is no JSON, or nested too deeply to be read.
    """
    try:
        return json.loads(text)
    except RecursionError:  # Python's reader goes a level deeper with each bracket
        raise ValueError("its brackets are nested too deeply") from None
