"""Documents that something is wrong with: counted by file and reason, and said if they are many."""

from collections import Counter

from chomp.system.console import Console

MANY = 0.01
"""A larger share of the documents read than this is said."""
LEAST_READ = 100
"""Documents to have read before a share means something; an epoch's end comes sooner perhaps."""
SHOWN = 3
"""Files that a message names."""


class Skipped:
    """Counts the documents that a stream leaves out or changes, and warns if they are many.

    Args:
        console: shows a warning when the share is first large, when they are ten times as many, and
            at the end of the first epoch.
        fate: says in the warning what becomes of them.
    """

    def __init__(self, console: Console, fate: str = "are left out"):
        self._console, self._fate = console, fate
        self._found: Counter[tuple[str, str]] = Counter()
        self._details: dict[tuple[str, str], str] = {}
        self._read = self._skipped = self._said = 0
        self._in_first_epoch = True

    def read(self) -> None:
        """Count a document as read, whatever is wrong with it."""
        self._read += 1
        if self._read == LEAST_READ:
            self._say_if_many(self._said + 1)

    def add(self, file: str, reason: str, detail: str = "") -> None:
        """Count one that something is wrong with; the first one's detail is shown."""
        self._skipped += 1
        self._found[file, reason] += 1
        self._details.setdefault((file, reason), detail)
        if self._read >= LEAST_READ:
            self._say_if_many(10 * self._said or 1)

    def end_epoch(self) -> None:
        """Take the end of an epoch."""
        if self._in_first_epoch:
            self._say_if_many(self._said + 1)
        self._in_first_epoch = False

    def _say_if_many(self, least: int) -> None:
        if self._skipped < least or self._skipped <= MANY * self._read:
            return
        self._said = self._skipped
        found = self._found.most_common()
        parts = [
            f"{count:,} in {key[0]}: {key[1]}{self._details[key]}" for key, count in found[:SHOWN]
        ]
        rest = sum(count for _, count in found[SHOWN:])
        parts += [f"{rest:,} in {len(found) - SHOWN:,} more places"] * (rest > 0)
        self._console.warn(
            f"{self._skipped:,} of the {self._read:,} documents read so far {self._fate} "
            f"({self._skipped / self._read:.0%}): {'; '.join(parts)}"
        )
