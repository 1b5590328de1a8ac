"""Rules between keys: a check, and the keys that it reads.

A rule runs only where all keys that it reads are valid by themselves, so that it can report its
problem beside theirs without repeating it.
"""

from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

from chomp.config.sections import Sections


class Problem(NamedTuple):
    """A broken rule, reported at the key that is most likely the one to change."""

    path: str
    message: str


Check = Callable[[Sections], Iterator[Problem]]


class Rule(NamedTuple):
    """A check, the keys that it reads, and its text for the reference page."""

    reads: frozenset[str]
    check: Check
    text: str

    def applies(self, invalid: Collection[str]) -> bool:
        """Tell whether it reads none of the `invalid` keys and sections, nor anything inside."""
        return not any(
            f"{read}.".startswith(f"{bad}.") or bad.startswith(f"{read}.")
            for read in self.reads
            for bad in invalid
        )


def rule(*reads: str) -> Callable[[Check], Rule]:
    """Make a rule of a check that reads these keys; its docstring is the rule's text."""

    def make(check: Check) -> Rule:
        return Rule(frozenset(reads), check, " ".join((check.__doc__ or "").split()))

    return make
