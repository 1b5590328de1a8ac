"""The data pipeline: from a config's corpus to batches, as one chain with one small state.

documents -> hold out -> window shuffle -> encode -> pack -> batch -> feed

Prepared tokens come in where texts have been encoded.
"""

import threading
import weakref
from typing import Any

import grain.python as grain

from chomp.config.data import DataConfig
from chomp.data.batching import Layout, draw
from chomp.data.evaluation import EvaluationSet
from chomp.data.feed import Feed
from chomp.data.files import Corpus
from chomp.data.fingerprint import Fingerprint
from chomp.data.packing import BinRows, Block, SequentialRows
from chomp.data.reading import reading_of
from chomp.data.sources import open_prepared, open_texts
from chomp.data.streams import Samples
from chomp.data.tokenizer import Tokenizer
from chomp.types import ROW_BITS, Drawn


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
    if config.backend == "tokens":
        source = open_prepared(config, tokenizer, evaluate=evaluate)
    else:
        source = open_texts(config, tokenizer, reading_of(config, closing), evaluate=evaluate)
    layout = Layout(
        *(accum, batch, time, pad_id, eos_id),
        mask_boundaries=config.mask_boundary_loss or config.isolate_documents,
        train_on_eos=config.train_on_eos,
    )
    evaluation = EvaluationSet(
        source.evaluation,
        tokenizer,
        layout._replace(accum=1),
        best_fit=config.packing_mode == "bin",
        max_pieces=config.packing_max_docs_per_bin,
    )
    batches = training_batches(source.blocks, config, layout).__iter__()
    return Data(
        Feed(batches, config.grain_prefetch),
        Samples(source.samples),
        evaluation,
        source.corpus,
        {"backend": config.backend, **source.fingerprint},
        closing,
    )


def training_batches(
    blocks: grain.IterDataset[Block], config: DataConfig, layout: Layout
) -> grain.IterDataset[Drawn]:
    """Chain everything from encoded documents to batches."""
    if config.packing_mode == "sequential":
        rows = SequentialRows(blocks, time=layout.time)
    else:
        rows = BinRows(
            blocks,
            time=layout.time,
            buffer=config.packing_buffer_docs,
            max_pieces=config.packing_max_docs_per_bin,
            seed=config.seed if config.shuffle else None,
        )
    return rows.batch(layout.accum * layout.batch, batch_fn=lambda rows: draw(rows, layout))
