"""Holding documents out of a stream."""

from typing import Any

import grain.python as grain

from chomp.data.sources.documents import Document
from chomp.errors import DataError


class HoldOut(grain.IterDataset[Document]):
    """Leaves out the documents in `keys`; their counts of skipped documents stay.

    Raises DataError when nothing else comes: all documents of a lane may be held out.
    """

    def __init__(self, parent: grain.IterDataset[Document], keys: frozenset[int]):
        super().__init__(parent)
        self._keys = keys

    def __iter__(self) -> "HoldOutIterator":
        return HoldOutIterator(self._parent.__iter__(), self._keys)


class HoldOutIterator(grain.DatasetIterator[Document]):
    """Has no state of its own."""

    def __init__(self, parent: grain.DatasetIterator[Document], keys: frozenset[int]):
        super().__init__(parent)
        self._keys = keys
        self._left_out = 0

    def __next__(self) -> Document:
        while True:
            document = next(self._parent)
            if document.key not in self._keys:
                if document.text:
                    self._left_out = 0
                return document
            self._left_out += 1
            # The end of an epoch and the next one's beginning may all be held out.
            if self._left_out > 2 * len(self._keys):
                raise DataError(
                    "data.lanes: all documents of a lane are held out for evaluation; set it or "
                    "data.max_eval_samples lower"
                )
            if document.skipped:
                return document._replace(text="", key=-1, repaired=False)

    def get_state(self) -> dict[str, Any]:
        """Return the parent's state."""
        return self._parent.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        """Set the parent's state."""
        self._parent.set_state(state)
        self._left_out = 0
