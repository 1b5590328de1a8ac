"""Streams of documents: the shuffled training split, samples of it, and what is held out."""

from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import grain.python as grain

from chomp.data.documents import Document, DocumentStream
from chomp.data.files import Corpus
from chomp.data.holding_out import HoldOut
from chomp.data.lane import WHOLE, Lane
from chomp.data.reading import Reading
from chomp.data.shuffling import WindowShuffle
from chomp.errors import DataError


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
        """Return the place behind the last document used; None at the start of the stream."""
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


class Split(NamedTuple):
    """The training documents in the order that a seed gives them."""

    corpus: Corpus
    reading: Reading
    shuffle: bool
    window: int

    def stream(
        self,
        seed: int,
        window: int,
        *,
        repeat: bool,
        held_out: frozenset[int] = frozenset(),
        lane: Lane = WHOLE,
    ) -> grain.IterDataset[Document]:
        """Return a lane's documents without those held out, shuffled if the config says so."""
        seed = lane.seed(seed)
        documents: grain.IterDataset[Document] = DocumentStream(
            self.corpus.shards,
            self.reading,
            repeat=repeat,
            seed=seed if self.shuffle else None,
            lane=lane,
        )
        if held_out:
            documents = HoldOut(documents, held_out)
        if not self.shuffle:
            return documents
        return WindowShuffle(documents, size=window, seed=seed)


class Chosen:
    """The first `count` documents of a stream, read when they are first needed."""

    def __init__(self, stream: Callable[[], grain.IterDataset[Document]], count: int):
        self._stream = stream
        self._count = count

    @cached_property
    def _read(self) -> tuple[list[Document], bool]:
        documents: list[Document] = []
        iterator = self._stream().__iter__()
        for document in iterator:
            if document.text and len(documents) == self._count:
                return documents, True
            if document.text:
                documents.append(document._replace(skipped=0))
        return documents, False

    def documents(self) -> list[Document]:
        """Return them."""
        return self._read[0]

    def keys_to_hold_out(self) -> frozenset[int]:
        """Return their keys. Raises DataError if no other document is left."""
        documents, more = self._read
        if not more:
            raise DataError(
                f"data.max_eval_samples: {self._count} documents are to be held out for "
                f"evaluation, but the corpus has only {len(documents)}: nothing would be left to "
                f"train on; set it below {len(documents)}, give evaluation data of its own "
                "(data.eval_files or data.hf_eval_split), or set train.eval_every: 0"
            )
        return frozenset(document.key for document in documents)
