"""Streams of documents: the shuffled training split, samples of it, and what is held out."""

from typing import Any, NamedTuple

import grain.python as grain

from chomp.data.holdout import HoldOut
from chomp.data.lane import WHOLE, Lane
from chomp.data.shuffle import Window, WindowShuffle
from chomp.data.sources.documents import Document, DocumentStream
from chomp.data.sources.local import Corpus
from chomp.data.sources.read_policy import ReadPolicy


class Samples:
    """Documents of the training split, one now and then; nothing is read before the first.

    A document counts as used once `commit` says so: one that was drawn for a sample that never
    came comes again after a resume.
    """

    def __init__(self, documents: grain.IterDataset[Document]):
        self._documents = documents
        self._state: dict[str, Any] | None = None
        self._iterator: grain.DatasetIterator[Document] | None = None

    def next_document(self) -> str:
        """Return the next document's text. Raises StopIteration at the end of the stream."""
        if self._iterator is None:
            self._iterator = self._documents.__iter__()
            if self._state is not None:
                self._iterator.set_state(self._state)
        while not (text := next(self._iterator).text):
            pass
        return text

    def commit(self) -> None:
        """Count what was drawn as used."""
        if self._iterator is not None:
            self._state = self._iterator.get_state()

    def get_state(self) -> dict[str, Any] | None:
        """Return the position after the last document used; None at the start of the stream."""
        return self._state

    def set_state(self, state: dict[str, Any] | None) -> None:
        """Go to where `state` was taken."""
        self.close()
        self._state = state

    def close(self) -> None:
        """Forget what was read ahead."""
        if self._iterator is not None:
            self._iterator.close()
        self._iterator = None


class TrainSplit(NamedTuple):
    """The training documents in the order that a seed gives them."""

    corpus: Corpus
    reading: ReadPolicy
    shuffle: bool
    window: Window

    def stream(
        self,
        seed: int,
        window: Window,
        *,
        repeat: bool,
        held_out: frozenset[int] = frozenset(),
        lane: Lane = WHOLE,
        tell: bool = False,
    ) -> grain.IterDataset[Document]:
        """Return a lane's documents without those held out, shuffled if the config says so.

        With `tell` the user is told if many are skipped.
        """
        seed = lane.seed(seed)
        documents: grain.IterDataset[Document] = DocumentStream(
            self.corpus.shards,
            self.reading if tell else self.reading.silent(),
            repeat=repeat,
            seed=seed if self.shuffle else None,
            lane=lane,
        )
        if held_out:
            documents = HoldOut(documents, held_out)
        if not self.shuffle:
            return documents
        return WindowShuffle(documents, window=window, seed=seed)
