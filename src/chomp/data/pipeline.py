"""The data pipeline: from a config's corpus to batches, as one chain with one small state.

documents -> hold out -> window shuffle -> encode -> pack -> batch -> prefetch

Up to packing each lane has a chain of its own. Prepared tokens come in where texts have been
encoded.
"""

import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grain.python as grain

from chomp.config.data import DataConfig
from chomp.data.all_sources import (
    Joined,
    OtherEvaluation,
    check_apart,
    joined,
    open_evaluation_sets,
    open_sources,
)
from chomp.data.batching import BatchSpec, draw
from chomp.data.corpus import Source
from chomp.data.evaluation import EvaluationSet, EvaluationSets
from chomp.data.lane import Lane
from chomp.data.lanes import LaneBatches, lanes_at_start, share_of
from chomp.data.loader import BatchLoader
from chomp.data.mixture import MixedDocuments, MixedRows, Schedule, SourceBlocks
from chomp.data.packing import BinRows, Block, PackedRow, SequentialRows, TokenizedDocument
from chomp.data.sources.documents import Document
from chomp.data.sources.read_policy import read_policy
from chomp.data.streams import Samples
from chomp.data.tokenizers.base import Tokenizer
from chomp.system.console import LOG, Console
from chomp.types import ROW_BITS, LoadedBatch


class Data:
    """All that a run reads: training batches, evaluation sets, samples, and the state of these.

    The state belongs to what has been drawn from `train` and `samples`, whatever is prepared
    ahead. It is a small JSON-able value; setting it gives exactly the elements that would have
    come. Of a process that runs some of the lanes it is a part (`merge_states` makes the whole of
    all parts); either may be set.
    """

    def __init__(
        self,
        train: BatchLoader,
        samples: Samples,
        evaluation: EvaluationSets,
        joined: Joined,
        layout: BatchSpec,
        closing: threading.Event,
    ):
        self.train = train
        self.samples = samples
        self.evaluation = evaluation
        self.corpus, self.evaluated = joined
        self.fingerprint, self.notes = self.corpus.fingerprint, self.corpus.notes
        self._layout = layout
        # Threads and iterators must be gone before the interpreter takes itself apart.
        self._finalizer = weakref.finalize(self, _close, train, samples, closing)

    def place(self, key: int) -> tuple[str, int]:
        """Return the file or shard, and the row in it, of a key in `BatchStats.keys`."""
        shard, row = divmod(key, 1 << ROW_BITS)
        return self.corpus.shards[shard].name, row

    def padding(self) -> LoadedBatch:
        """Return a batch of nothing: for a process whose lanes end before those of others."""
        empty = draw([], self._layout)
        return empty._replace(batch=self.train.place(empty.batch))

    def get_state(self) -> dict[str, Any]:
        """Return the position in both streams."""
        return {"train": self.train.get_state(), "samples": self.samples.get_state()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go to where `state` was taken."""
        self.train.set_state(state["train"])
        self.samples.set_state(state["samples"])

    def close(self) -> None:
        """Stop the background threads."""
        self._finalizer()


def _close(train: BatchLoader, samples: Samples, closing: threading.Event) -> None:
    closing.set()
    train.close()
    samples.close()


def open_data(
    config: DataConfig,
    tokenizer: Tokenizer,
    layout: BatchSpec,
    *,
    evaluate: bool = True,
    lanes: int | None = None,
    rows: range | None = None,
    console: Console = LOG,
) -> Data:
    """Open a config's corpus.

    Args:
        config: the section `data`.
        tokenizer: of the config.
        layout: of the batches of all processes together.
        evaluate: whether an evaluation set is needed: documents are held out only then.
        lanes: parts that the corpus is read in; None: as the config says for one process.
        rows: those of each microbatch that this process lays out; None: all.
        console: shows warnings, from any thread.

    Raises DataError if the corpus can't be opened, the evaluation documents can't be read or give
    nothing to predict, or the lanes don't fit.
    """
    batch = layout.batch
    share = share_of(lanes or lanes_at_start(config, batch, processes=1), batch, rows)
    closing = threading.Event()
    reading = read_policy(config, closing, console)
    sources = open_sources(config, tokenizer, reading, evaluate=evaluate)
    others = open_evaluation_sets(config, tokenizer, reading) if evaluate else {}
    check_apart(sources, others)

    def scored(source: Source | OtherEvaluation) -> EvaluationSet:
        return evaluation_set(config, tokenizer, layout, source.evaluation, share.rows)

    evaluation = EvaluationSets(
        {name: scored(source) for name, source in sources.items()},
        {name: scored(other) for name, other in others.items()},
    )
    if evaluate:
        evaluation.prepare()  # what is wrong with it must not end a run hours later
    packed = {lane: _lane_rows(sources, config, layout, lane) for lane in share.own}
    batches = LaneBatches(packed, share, layout)
    return Data(
        BatchLoader(batches.__iter__(), config.grain_prefetch),
        Samples(_samples(sources)),
        evaluation,
        joined(sources, others),
        layout._replace(batch=len(share.rows)),
        closing,
    )


def _samples(sources: Mapping[str, Source]) -> grain.IterDataset[Document]:
    if list(sources) == [""]:
        return sources[""].samples
    return MixedDocuments({name: source.samples for name, source in sources.items()})


def _lane_rows(
    sources: Mapping[str, Source], config: DataConfig, layout: BatchSpec, lane: Lane
) -> grain.IterDataset[PackedRow]:
    def packed(blocks: grain.IterDataset[Block]) -> grain.IterDataset[PackedRow]:
        return packed_rows(blocks, config, layout.time, lane.seed(config.seed))

    if list(sources) == [""]:
        return packed(sources[""].blocks(lane))
    rows = {}
    shards = 0
    for number, (name, source) in enumerate(sources.items()):
        rows[name] = packed(SourceBlocks(source.blocks(lane), number, shards))
        shards += len(source.corpus.shards)
    return MixedRows(rows, Schedule.of(config), layout, lane)


def evaluation_set(
    config: DataConfig,
    tokenizer: Tokenizer,
    layout: BatchSpec,
    documents: Callable[[], Sequence[TokenizedDocument]],
    rows: range | None = None,
) -> EvaluationSet:
    """Return documents as an evaluation set that is packed as the section `data` says.

    Args:
        config: the section.
        tokenizer: the documents'.
        layout: of training batches.
        documents: reads and encodes them.
        rows: those that this process lays out of each batch; None: all.
    """
    return EvaluationSet(
        documents,
        tokenizer,
        layout._replace(accum=1),
        best_fit=config.packing_mode == "bin",
        max_pieces=config.packing_max_docs_per_bin,
        rows=rows,
    )


def packed_rows(
    blocks: grain.IterDataset[Block], config: DataConfig, time: int, seed: int
) -> grain.IterDataset[PackedRow]:
    """Pack encoded documents as the section `data` says."""
    if config.packing_mode == "sequential":
        return SequentialRows(blocks, time=time)
    return BinRows(
        blocks,
        time=time,
        buffer=config.packing_buffer_docs,
        max_pieces=config.packing_max_docs_per_bin,
        seed=seed if config.shuffle else None,
    )
