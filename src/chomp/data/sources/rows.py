"""Rows of a file or shard: a text, nothing, or something broken."""

from collections.abc import Iterator
from typing import NamedTuple


class Row(NamedTuple):
    """One row of a shard: a text, nothing, or something broken."""

    text: str | None = None
    repaired: bool = False
    """Invalid UTF-8 was replaced."""
    fault: str = ""
    """Reason that this isn't a document; names file and line or row."""
    columns: tuple[str, ...] = ()
    """The keys there are, where the text's key isn't one of them."""


Rows = Iterator[tuple[int, Row]]
"""Rows with their numbers."""


class BrokenFileError(Exception):
    """A shard can't be read on from here; the message names it and the place."""
