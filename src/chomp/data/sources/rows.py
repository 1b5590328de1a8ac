"""Rows: what a file or shard holds at one place."""

from collections.abc import Iterator
from typing import NamedTuple


class Row(NamedTuple):
    """What a shard holds at one place: a text, nothing, or something broken."""

    text: str | None = None
    repaired: bool = False
    """Invalid UTF-8 was replaced."""
    fault: str = ""
    """Why this isn't a document: names file and line or row."""
    columns: tuple[str, ...] = ()
    """The keys there are, where the text's key isn't one of them."""


Rows = Iterator[tuple[int, Row]]
"""Rows with their numbers."""


class BrokenFileError(Exception):
    """A shard can't be read on from here; the message names it and the place."""
