"""The data pipeline: from a config's corpus to batches, as one chain with one small state.

documents -> hold out -> window shuffle -> encode -> pack -> batch -> prefetch
"""

import threading
import weakref
from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import grain.python as grain
from grain.experimental import ThreadPrefetchIterDataset, WindowShuffleIterDataset

from chomp.config.data import DataConfig
from chomp.data.batching import Layout, draw
from chomp.data.documents import Document, DocumentStream, HoldOut, Reading
from chomp.data.encoding import EncodedBlocks
from chomp.data.evaluation import EvaluationSet
from chomp.data.files import Corpus, find_files, given_texts, standard_library
from chomp.data.fingerprint import Fingerprint
from chomp.data.packing import BinRows, SequentialRows
from chomp.data.tokenizer import Tokenizer
from chomp.errors import DataError
from chomp.types import Drawn

SAMPLE_WINDOW = 1000
"""The stream of samples shuffles in smaller windows: it is drawn from rarely."""
SAMPLE_SEED = 0x5A17


class Data:
    """All that a run reads: training batches, evaluation set, samples, and the state of these.

    The state belongs to what has been drawn from `train` and `samples`, whatever is prepared
    ahead. It is a small JSON-able value; setting it gives exactly the elements that would have
    come.
    """

    def __init__(
        self,
        train: grain.DatasetIterator[Drawn],
        samples: "Samples",
        evaluation: EvaluationSet,
        fingerprint: Fingerprint,
        closing: threading.Event,
    ):
        self.samples = samples
        self.evaluation = evaluation
        self.fingerprint = fingerprint
        self._open = [train]
        # Threads and iterators must be gone before the interpreter takes itself apart.
        self._finalizer = weakref.finalize(self, _close, self._open, samples, closing)

    @property
    def train(self) -> grain.DatasetIterator[Drawn]:
        """The training stream. Raises ValueError when closed."""
        if not self._open:
            raise ValueError("the data is closed")
        return self._open[0]

    def get_state(self) -> dict[str, Any]:
        """Return the place in both streams."""
        return {"train": self.train.get_state(), "samples": self.samples.get_state()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go to where `state` was taken."""
        self.train.set_state(state["train"])
        self.samples.set_state(state["samples"])

    def close(self) -> None:
        """Stop the background threads."""
        self._finalizer()


def _close(train: list[grain.DatasetIterator[Drawn]], samples: "Samples", closing: threading.Event):
    closing.set()
    while train:
        train.pop().close()
    samples.close()


class Samples:
    """Documents of the training split, one now and then; nothing is read before the first."""

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

    def get_state(self) -> dict[str, Any] | None:
        """Return the place in the stream; None at its start."""
        return self._iterator.get_state() if self._iterator is not None else self._state

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
        self, seed: int, window: int, *, repeat: bool, held_out: frozenset[int] = frozenset()
    ) -> grain.IterDataset[Document]:
        """Return the documents without those held out, shuffled if the config says so."""
        documents: grain.IterDataset[Document] = DocumentStream(
            self.corpus.shards, self.reading, repeat=repeat, seed=seed if self.shuffle else None
        )
        if held_out:
            documents = HoldOut(documents, held_out)
        if not self.shuffle:
            return documents
        return WindowShuffleIterDataset(documents, window_size=window, seed=seed)


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


def open_data(
    config: DataConfig,
    tokenizer: Tokenizer,
    *,
    accum: int,
    batch: int,
    time: int,
    pad_id: int,
    eos_id: int,
    evaluate: bool = True,
) -> Data:
    """Open a config's corpus.

    Args:
        config: the section `data`.
        tokenizer: of the config.
        accum: rows of the batch's first axis (microbatches).
        batch: its second axis (rows of a microbatch).
        time: its third axis (tokens of a row).
        pad_id: token of padded positions.
        eos_id: token that `data.train_on_eos: false` keeps out of the loss.
        evaluate: whether an evaluation set is needed: documents are held out only then.

    Raises DataError if the corpus can't be opened or is too small.
    """
    closing = threading.Event()
    reading = Reading(
        config.text_key,
        config.on_error == "skip",
        config.max_retries,
        config.retry_delay_sec,
        closing,
    )
    corpus = open_corpus(config)
    seed = config.seed % 2**31
    split = Split(corpus, reading, config.shuffle, config.shuffle_buffer_size)
    own = open_evaluation_corpus(config)
    if own is None:
        chosen = Chosen(
            lambda: split.stream(seed, split.window, repeat=False), config.max_eval_samples
        )
        held_out = chosen.keys_to_hold_out() if evaluate else frozenset[int]()
    else:
        chosen = Chosen(
            lambda: DocumentStream(own.shards, reading, repeat=False, seed=None),
            config.max_eval_samples,
        )
        held_out = frozenset[int]()
    layout = Layout(
        *(accum, batch, time, pad_id, eos_id),
        mask_boundaries=config.mask_boundary_loss or config.isolate_documents,
        train_on_eos=config.train_on_eos,
    )
    documents = split.stream(seed, split.window, repeat=config.repeat, held_out=held_out)
    evaluation = EvaluationSet(
        chosen.documents,
        tokenizer,
        layout._replace(accum=1),
        max_doc_tokens=config.tokenizer.max_doc_tokens,
        best_fit=config.packing_mode == "bin",
        max_pieces=config.packing_max_docs_per_bin,
    )
    samples = Samples(
        split.stream(
            (seed + SAMPLE_SEED) % 2**31,
            min(split.window, SAMPLE_WINDOW),
            repeat=True,
            held_out=held_out,
        )
    )
    fingerprint = corpus.fingerprint
    if own is not None:
        fingerprint |= {f"evaluation {key}": value for key, value in own.fingerprint.items()}
    train = training_batches(documents, config, tokenizer, layout).__iter__()
    return Data(train, samples, evaluation, {"backend": config.backend, **fingerprint}, closing)


def training_batches(
    documents: grain.IterDataset[Document],
    config: DataConfig,
    tokenizer: Tokenizer,
    layout: Layout,
) -> grain.IterDataset[Drawn]:
    """Chain everything from documents to prefetched batches."""
    encoded = EncodedBlocks(documents, tokenizer, config.tokenizer.max_doc_tokens)
    if config.packing_mode == "sequential":
        rows = SequentialRows(encoded, time=layout.time)
    else:
        rows = BinRows(
            encoded,
            time=layout.time,
            buffer=config.packing_buffer_docs,
            max_pieces=config.packing_max_docs_per_bin,
            seed=config.seed if config.shuffle else None,
        )
    batches = rows.batch(layout.accum * layout.batch, batch_fn=lambda rows: draw(rows, layout))
    return ThreadPrefetchIterDataset(batches, prefetch_buffer_size=config.grain_prefetch)


def open_corpus(config: DataConfig) -> Corpus:
    """Open the training documents' corpus."""
    match config.backend:
        case "builtin":
            return standard_library()
        case "local_text":
            return given_texts(config.local_text or ())
        case "files":
            return find_files("data.files", config.files, config.text_key)
        case "hf":
            return _open_split(config, "data.hf_split", config.hf_split)


def open_evaluation_corpus(config: DataConfig) -> Corpus | None:
    """Open the corpus that is only for evaluation, if the config names one."""
    if config.backend == "files" and config.eval_files:
        return find_files("data.eval_files", config.eval_files, config.text_key)
    if config.backend == "hf" and config.hf_eval_split is not None:
        return _open_split(config, "data.hf_eval_split", config.hf_eval_split)
    return None


def _open_split(config: DataConfig, key: str, split: str) -> Corpus:
    from chomp.data.datasets_source import open_dataset  # heavy: only where it is needed

    return open_dataset(key, config.hf_dataset, config.hf_name, split, config.text_key)
