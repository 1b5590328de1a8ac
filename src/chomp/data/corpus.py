"""A config's documents: texts, encoded as they are read, or prepared tokens."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import grain.python as grain

from chomp.config.data import DataConfig
from chomp.config.registry import SOURCES
from chomp.data.evaluation_split import EvaluationSplit, cut_in_two
from chomp.data.lane import Lane
from chomp.data.packing import Block, TokenizedDocument
from chomp.data.shuffle import Window
from chomp.data.sources.documents import Document, DocumentStream
from chomp.data.sources.fingerprint import Fingerprint, copies
from chomp.data.sources.local import Corpus, FileShard, find_files, given_texts, standard_library
from chomp.data.sources.patterns import Inode
from chomp.data.sources.read_policy import ReadPolicy
from chomp.data.streams import TrainSplit
from chomp.data.token_cache.corpus import (
    TokenCorpus,
    as_corpus,
    check_files,
    check_settings,
    open_token_corpus,
)
from chomp.data.token_cache.stream import TokenBlocks, TokenTexts
from chomp.data.tokenize import EncodedBlocks, encode
from chomp.data.tokenizers.base import Tokenizer
from chomp.errors import DataError

SAMPLE_WINDOW = 1000
"""Shuffle window of the stream of samples: small, as it is read from rarely."""
SAMPLE_SEED = 0x5A17
SEEDS = 2**31
HELD_OUT = "held out of training"


class Source(NamedTuple):
    """A config's documents."""

    corpus: Corpus
    """The shards of the training documents, to name and look at them."""
    fingerprint: Fingerprint
    blocks: Callable[[Lane], grain.IterDataset[Block]]
    """Makes the stream of a lane's training documents, encoded, in order."""
    samples: grain.IterDataset[Document]
    """The training documents as texts, in another order, for samples."""
    evaluation: Callable[[], Sequence[TokenizedDocument]]
    """Reads the evaluation documents, encoded."""
    evaluation_corpus: Corpus
    """The shards that the keys of evaluation documents are of."""
    evaluated: str = ""
    """Description of the evaluation documents, for the user."""
    notes: Sequence[str] = ()
    """Messages for the user about the data."""


class TextSplits(NamedTuple):
    """A config's corpus, and which of its documents are evaluated on."""

    corpus: Corpus
    own: Corpus | None
    """The evaluation documents' own corpus, if there is one."""
    split: TrainSplit
    evaluation: EvaluationSplit
    """The evaluation documents."""
    evaluated: str
    """Description of the evaluation documents; empty: they are held out of the corpus."""
    notes: Sequence[str]

    def held_out(self, *, evaluate: bool) -> frozenset[int]:
        """Return the keys of the documents to leave out of training."""
        if self.own is not None or not evaluate:
            return frozenset()
        return self.evaluation.keys()

    @property
    def fingerprint(self) -> Fingerprint:
        """Fingerprints of both corpora."""
        own = {} if self.own is None else self.own.fingerprint
        return {
            **self.corpus.fingerprint,
            **{f"evaluation {key}": value for key, value in own.items()},
        }


def find_texts(
    config: DataConfig,
    reading: ReadPolicy,
    *,
    only_evaluated: frozenset[Inode],
    evaluate: bool = True,
) -> TextSplits:
    """Find the texts of a config with one source.

    Args:
        config: the section `data`.
        reading: how files are read.
        only_evaluated: files that are never trained on.
        evaluate: whether there is evaluation.

    Raises DataError if they can't be opened.
    """
    own, evaluated, notes = open_evaluation_corpus(config, reading, evaluate=evaluate)
    corpus = open_corpus(config, reading, own, only_evaluated)
    notes = [*notes, *corpus.notes, *(own.notes if own else ())]
    if own is not None and evaluate and (found := copies(_files(own), _files(corpus))):
        more = f", and {len(found) - 1:,} more" if len(found) > 1 else ""
        notes.append(
            f"evaluation files hold what is trained on too: {found[0][0]} is a copy of "
            f"{found[0][1]}{more}"
        )
    seed = config.held_out_seed % SEEDS

    def texts_of(
        corpus: Corpus, own: Corpus | None, asked: int | None, evaluation: ReadPolicy = reading
    ) -> TextSplits:
        window = Window(config.shuffle_buffer_size, config.shuffle_buffer_bytes)
        split = TrainSplit(corpus, reading, config.shuffle, window)

        def stream() -> grain.IterDataset[Document]:
            if own is None:
                return split.stream(seed, split.window, repeat=False)
            named = evaluation._replace(corpus="the evaluation documents' corpus")
            return DocumentStream(own.shards, named, repeat=False, seed=None)

        held = EvaluationSplit(stream, asked, held_out=own is None)
        return TextSplits(corpus, own, split, held, evaluated, notes)

    texts = texts_of(corpus, own, config.max_eval_samples)
    if not evaluate or own is not None:
        return texts
    notes += [texts.evaluation.note] * bool(texts.evaluation.note)
    if (only := texts.evaluation.only) is None:
        return texts
    halves = cut_in_two(list(corpus.shards), only)
    evaluated = f"the last {halves.characters:,} characters of the only document"
    last = Corpus(halves.last, {"part": evaluated})
    return texts_of(corpus._replace(shards=halves.first), last, None, reading.silent())


def _files(corpus: Corpus) -> list[str]:
    return [shard.name for shard in corpus.shards if isinstance(shard, FileShard)]


def open_texts(
    config: DataConfig, tokenizer: Tokenizer, texts: TextSplits, *, evaluate: bool
) -> Source:
    """Return a config's texts as a source; they are encoded as they are read."""
    held_out = texts.held_out(evaluate=evaluate)
    split, seed = texts.split, config.seed % SEEDS
    most = config.tokenizer.max_doc_tokens

    def blocks(lane: Lane) -> grain.IterDataset[Block]:
        stream = split.stream(
            *(seed, split.window), repeat=config.repeat, held_out=held_out, lane=lane, tell=True
        )
        # A round of bins would end otherwise than in a mended file.
        ordered = config.packing_mode == "sequential"
        return EncodedBlocks(stream, tokenizer, most, short_before_error=ordered)

    samples = split.stream(
        (seed + SAMPLE_SEED) % SEEDS,
        split.window._replace(documents=min(split.window.documents, SAMPLE_WINDOW)),
        repeat=True,
        held_out=held_out,
    )
    return Source(
        texts.corpus,
        texts.fingerprint,
        blocks,
        samples,
        lambda: encode(texts.evaluation.documents(), tokenizer, most),
        texts.own or texts.corpus,
        texts.evaluated or HELD_OUT,
        texts.notes,
    )


def open_prepared(config: DataConfig, tokenizer: Tokenizer, *, evaluate: bool) -> Source:
    """Open a config's prepared tokens. Raises DataError if they are damaged or don't fit it."""
    corpus = open_token_corpus(Path(config.tokens_dir or ""))
    check_settings(corpus, config, tokenizer)
    count = _evaluation_documents(corpus, config.max_eval_samples) if evaluate else 0
    check_files(corpus)
    seed = config.seed % SEEDS

    def blocks(lane: Lane) -> grain.IterDataset[Block]:
        if lane.of > len(corpus.train):
            raise DataError(
                f"data.lanes: must be at most the documents in {corpus.folder}, which are "
                f"{len(corpus.train)} (got {lane.of})"
            )
        return TokenBlocks(
            corpus.train,
            seed=seed if config.shuffle else None,
            repeat=config.repeat,
            skipped_at_end=corpus.manifest.skipped_at_end,
            alone=corpus.manifest.end_alone,
            lane=lane,
        )

    shards = as_corpus(corpus)
    return Source(
        shards,
        corpus.fingerprint,
        blocks,
        TokenTexts(
            corpus.train, tokenizer, seed=(seed + SAMPLE_SEED) % SEEDS if config.shuffle else None
        ),
        lambda: [corpus.evaluation.document(number) for number in range(count)],
        shards,
        "kept apart when the tokens were prepared",
    )


def _evaluation_documents(corpus: TokenCorpus, most: int | None) -> int:
    """Return how many documents to evaluate on. Raises DataError if not enough are kept apart."""
    kept = corpus.manifest.plan["evaluation"]
    if kept is None:
        raise DataError(
            f"data.tokens_dir: {corpus.folder} keeps no documents apart for evaluation: it was "
            "prepared with train.eval_every: 0; set that here too, or prepare it again"
        )
    there = kept["max_eval_samples"] or len(corpus.evaluation)
    if most is not None and most > there:
        raise DataError(
            f"data.max_eval_samples: {corpus.folder} was prepared with {there} (got {most}); set "
            "it to that or less, or prepare it again"
        )
    return min(most or there, len(corpus.evaluation))


def open_corpus(
    config: DataConfig,
    reading: ReadPolicy,
    own: Corpus | None,
    only_evaluated: frozenset[Inode],
) -> Corpus:
    """Open the training documents' corpus of one source.

    Args:
        config: the section `data`.
        reading: how files are read.
        own: the evaluation documents' own corpus, which is never trained on.
        only_evaluated: files that are never trained on.

    Raises DataError if it can't be opened.
    """
    match config.backend:
        case "builtin":
            return standard_library()
        case "local_text":
            return given_texts(config.local_text or ())
        case "files":
            # Whether there is evaluation or not: it is the same corpus.
            return find_files(
                *("data.files", config.files, config.text_key, config.document_separator),
                only_evaluated,
            )
        case "tokens":
            return as_corpus(open_token_corpus(Path(config.tokens_dir or "")))
        case "hf":
            corpus = _open_split(config, "data.hf_split", config.hf_split, reading)
            names = {shard.name for shard in own.shards} if own else set()
            if shared := [shard.name for shard in corpus.shards if shard.name in names]:
                raise DataError(
                    f"data.hf_eval_split: {config.hf_eval_split!r} has files that are trained on "
                    f"too, such as {shared[0]}; name another split, or null to hold documents out"
                )
            return corpus
        case registered:
            return SOURCES[registered](config)


def open_evaluation_corpus(
    config: DataConfig, reading: ReadPolicy, *, evaluate: bool
) -> tuple[Corpus | None, str, list[str]]:
    """Open the corpus that is only for evaluation, if there is one.

    Returns it, what it is in words, and what the user should know.
    """
    if config.backend == "files" and config.eval_files:
        corpus = find_files(
            "data.eval_files", config.eval_files, config.text_key, config.document_separator
        )
        return corpus, "of data.eval_files", []
    if config.backend != "hf" or config.hf_eval_split is None or not evaluate:
        return None, "", []
    from chomp.data.sources.huggingface import NoSplitError

    try:
        corpus = _open_split(config, "data.hf_eval_split", config.hf_eval_split, reading)
    except NoSplitError as error:
        return None, "", [f"{error}; evaluating on documents held out of training instead"]
    return corpus, f"of the split {config.hf_eval_split!r}", []


def _open_split(config: DataConfig, key: str, split: str, reading: ReadPolicy) -> Corpus:
    from chomp.data.sources.huggingface import DatasetName, open_dataset  # heavy: only where needed

    dataset = DatasetName(config.hf_dataset, config.hf_name, config.hf_revision)
    return open_dataset(key, dataset, split, reading)
