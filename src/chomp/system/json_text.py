"""JSON from outside: whatever is wrong with it is a ValueError."""

import json
from typing import Any


def parse_json(text: str | bytes) -> Any:
    """Return the value that a text of JSON stands for.

    Raises:
        ValueError: it is no JSON, or nested too deeply to be read.
    """
    try:
        return json.loads(text)
    except RecursionError:  # Python's reader goes a level deeper with each bracket
        raise ValueError("its brackets are nested too deeply") from None
