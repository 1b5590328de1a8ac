"""What tokenizers make of text alone, where nothing in it is meant as a control token."""

from collections.abc import Mapping
from typing import Protocol

from chomp.errors import DataError

PROBE = " ".join(
    f"Some words {number}, and tokens of the tokenizer: again!" for number in range(40)
)


class PlainText(Protocol):
    """The part of a tokenizer that encodes text alone."""

    def plain(self, text: str) -> list[int]:
        """Return the ids of a text."""
        ...

    def characters(self, text: str) -> list[int]:
        """Return the ids of each character of a text by itself."""
        ...


def spelled_controls(controls: Mapping[int, str], tokenizer: PlainText) -> dict[int, list[int]]:
    """Find the control tokens that text spelling them is encoded to, and what to write instead.

    The models of some tokenizers (Unigram) have the control tokens among their pieces.
    """
    leaks = {}
    for token_id, text in controls.items():
        if text and token_id in tokenizer.plain(f"a {text}{text} b"):
            leaks[token_id] = [i for i in tokenizer.characters(text) if i != token_id]
    return leaks


def check_repeats(tokenizer: PlainText) -> None:
    """Check that a tokenizer encodes a text in one way. Raises DataError."""
    if any(tokenizer.plain(PROBE) != tokenizer.plain(PROBE) for _ in range(2)):
        raise DataError(
            "data.tokenizer: gives other tokens for the same text each time (it samples them), so "
            "no run could be resumed exactly; switch that off in its files"
        )
