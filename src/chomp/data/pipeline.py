"""The data pipeline: from a config's corpus to batches, as one chain with one small state.

documents -> hold out -> window shuffle -> encode -> pack -> batch -> feed
"""

import threading
import weakref
from typing import Any

import grain.python as grain

from chomp.config.data import DataConfig
from chomp.data.batching import Layout, draw
from chomp.data.documents import Document, DocumentStream
from chomp.data.encoding import EncodedBlocks
from chomp.data.evaluation import EvaluationSet
from chomp.data.feed import Feed
from chomp.data.files import Corpus, find_files, given_texts, standard_library
from chomp.data.fingerprint import Fingerprint
from chomp.data.packing import BinRows, SequentialRows
from chomp.data.reading import Reading
from chomp.data.streams import Chosen, Samples, Split
from chomp.data.tokenizer import Tokenizer
from chomp.types import ROW_BITS, Drawn

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
        train: Feed,
        samples: Samples,
        evaluation: EvaluationSet,
        corpus: Corpus,
        fingerprint: Fingerprint,
        closing: threading.Event,
    ):
        self.train = train
        self.samples = samples
        self.evaluation = evaluation
        self.corpus = corpus
        self.fingerprint = fingerprint
        # Threads and iterators must be gone before the interpreter takes itself apart.
        self._finalizer = weakref.finalize(self, _close, train, samples, closing)

    def place(self, key: int) -> tuple[str, int]:
        """Return the file or shard, and the row in it, of a key in `BatchStats.keys`."""
        shard, row = divmod(key, 1 << ROW_BITS)
        return self.corpus.shards[shard].name, row

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


def _close(train: Feed, samples: Samples, closing: threading.Event) -> None:
    closing.set()
    train.close()
    samples.close()


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
        config.timeout_sec,
        closing,
    )
    corpus = open_corpus(config, reading)
    seed = config.seed % 2**31
    split = Split(corpus, reading, config.shuffle, config.shuffle_buffer_size)
    own = open_evaluation_corpus(config, reading)
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
    fingerprint: Fingerprint = {"backend": config.backend, **corpus.fingerprint}
    if own is not None:
        fingerprint |= {f"evaluation {key}": value for key, value in own.fingerprint.items()}
    batches = training_batches(documents, config, tokenizer, layout).__iter__()
    return Data(
        Feed(batches, config.grain_prefetch), samples, evaluation, corpus, fingerprint, closing
    )


def training_batches(
    documents: grain.IterDataset[Document],
    config: DataConfig,
    tokenizer: Tokenizer,
    layout: Layout,
) -> grain.IterDataset[Drawn]:
    """Chain everything from documents to batches."""
    sequential = config.packing_mode == "sequential"
    encoded = EncodedBlocks(
        documents,
        tokenizer,
        config.tokenizer.max_doc_tokens,
        short_before_error=sequential,  # a round of bins would end otherwise than in a mended file
    )
    if sequential:
        rows = SequentialRows(encoded, time=layout.time)
    else:
        rows = BinRows(
            encoded,
            time=layout.time,
            buffer=config.packing_buffer_docs,
            max_pieces=config.packing_max_docs_per_bin,
            seed=config.seed if config.shuffle else None,
        )
    return rows.batch(layout.accum * layout.batch, batch_fn=lambda rows: draw(rows, layout))


def open_corpus(config: DataConfig, reading: Reading) -> Corpus:
    """Open the training documents' corpus."""
    match config.backend:
        case "builtin":
            return standard_library()
        case "local_text":
            return given_texts(config.local_text or ())
        case "files":
            return find_files("data.files", config.files, config.text_key)
        case "hf":
            return _open_split(config, "data.hf_split", config.hf_split, reading)


def open_evaluation_corpus(config: DataConfig, reading: Reading) -> Corpus | None:
    """Open the corpus that is only for evaluation, if the config names one."""
    if config.backend == "files" and config.eval_files:
        return find_files("data.eval_files", config.eval_files, config.text_key)
    if config.backend == "hf" and config.hf_eval_split is not None:
        return _open_split(config, "data.hf_eval_split", config.hf_eval_split, reading)
    return None


def _open_split(config: DataConfig, key: str, split: str, reading: Reading) -> Corpus:
    from chomp.data.datasets_source import open_dataset  # heavy: only where it is needed

    return open_dataset(key, config.hf_dataset, config.hf_name, split, reading)
