"""Shuffling within windows of the document stream.

Grain's own window shuffle goes on across an epoch's end: of a corpus smaller than the window it
would hold many epochs at once, and some documents would come many times before others come once.
"""

from typing import Any, NamedTuple

import grain.python as grain
import numpy as np

from chomp.data.resume import misfit
from chomp.data.sources.documents import Document


class Window(NamedTuple):
    """When a window is full."""

    documents: int
    bytes: int | None = None
    """Of text, reached or exceeded by the last document; None: however many."""

    def is_full(self, documents: int, size: int) -> bool:
        """Whether so many documents, of so many bytes, fill it."""
        return documents >= self.documents or (self.bytes is not None and size >= self.bytes)


class WindowShuffle(grain.IterDataset[Document]):
    """Documents in shuffled windows; a window ends where it is full, or with its epoch.

    Each window has its own order, drawn from `seed` and the window's number.
    """

    def __init__(self, parent: grain.IterDataset[Document], *, window: Window, seed: int):
        super().__init__(parent)
        self._window = window
        self._seed = seed

    def __iter__(self) -> "WindowShuffleIterator":
        return WindowShuffleIterator(self._parent.__iter__(), self._window, self._seed)


class WindowShuffleIterator(grain.DatasetIterator[Document]):
    """State: the parent's before the window, the window's number, the place in it."""

    def __init__(self, parent: grain.DatasetIterator[Document], full: Window, seed: int):
        super().__init__(parent)
        self._full = full
        self._seed = seed
        self._ahead: Document | None = None
        self._restart(parent.get_state(), 0, 0)

    def _restart(self, start: dict[str, Any], number: int, place: int) -> None:
        self._start, self._number, self._place = start, number, place
        self._window: list[Document] | None = None

    def get_state(self) -> dict[str, Any]:
        """Return the window and the place in it that comes next."""
        return {"start": self._start, "window": self._number, "place": self._place}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go to where `state` was taken; the window is read again when it is needed."""
        self._parent.set_state(state["start"])
        self._ahead = None
        self._restart(state["start"], state["window"], state["place"])

    def __next__(self) -> Document:
        if self._window is None:
            self._window, self._end = self._read_window()
            if self._place and self._place >= len(self._window):
                raise misfit(f"document {self._place} of a window of {len(self._window)}")
            del self._window[len(self._window) - self._place :]
        if not self._window:
            raise StopIteration
        document = self._window.pop()
        self._place += 1
        if not self._window:
            self._restart(self._end, self._number + 1, 0)
        return document

    def _read_window(self) -> tuple[list[Document], dict[str, Any]]:
        """Read a window; return it shuffled, and the parent's state where the next one starts."""
        documents = [] if self._ahead is None else [self._ahead]
        self._ahead = None
        end = self._parent.get_state()
        size = sum(document.size for document in documents)
        while not self._full.is_full(len(documents), size):
            document = next(self._parent, None)
            if document is None:
                break
            if documents and document.epoch != documents[0].epoch:
                self._ahead = document
                break
            documents.append(document)
            size += document.size
            end = self._parent.get_state()
        order = np.random.default_rng([self._seed, self._number]).permutation(len(documents))
        return [documents[i] for i in order], end
