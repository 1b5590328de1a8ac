"""Texts to score: a run's own evaluation documents, or others."""

import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

from chomp.config import Config
from chomp.config.data import DataConfig
from chomp.data import Corpus, Tokenizer, at_commits
from chomp.data.all_sources import joined, open_evaluation_sets, open_sources
from chomp.data.corpus import HELD_OUT
from chomp.data.packing import TokenizedDocument
from chomp.data.sources.documents import DocumentStream
from chomp.data.sources.local import find_files
from chomp.data.sources.read_policy import ReadPolicy, read_policy
from chomp.data.tokenize import encode
from chomp.errors import DataError
from chomp.system.console import Console
from chomp.system.extras import require_package
from chomp.types import ROW_BITS


class OtherTexts(NamedTuple):
    """Texts that aren't a run's own.

    Attributes:
        files: paths, folders and globs; else the dataset.
        dataset: a name on the Hugging Face hub, or a folder that `datasets` reads.
        split: of the dataset.
        text_key: field of the text; None: as the run's data has it.
    """

    files: Sequence[str] = ()
    dataset: str | None = None
    split: str = "test"
    text_key: str | None = None


class EvaluationTexts(NamedTuple):
    """Documents to score."""

    documents: Sequence[TokenizedDocument]
    described: str
    """What they are, for the user."""
    corpus: Corpus
    """Where they come from."""
    name: str = ""
    """Of the source or evaluation set, where a run has several."""
    counted: bool = True
    """Whether the run's total counts them."""

    def place(self, document: TokenizedDocument) -> str:
        """Return the name of a document's file, and its row there."""
        shard, row = divmod(document.key, 1 << ROW_BITS)
        if not 0 <= shard < len(self.corpus.shards):
            return "?"
        return f"{self.corpus.shards[shard].name}:{row}"


def own_texts(
    config: Config, tokenizer: Tokenizer, then: dict[str, Any], console: Console
) -> list[EvaluationTexts]:
    """Return the documents that a run is evaluated on: those of each source and evaluation set.

    Args:
        config: of the run.
        tokenizer: of the run.
        then: the fingerprint of its data when the checkpoint was saved.
        console: shows a warning if the data has changed since.

    Raises:
        DataError: they can't be read, or there are none.
    """
    data = at_commits(config.data, then)
    reading = read_policy(data, threading.Event(), console)
    sources = open_sources(data, tokenizer, reading, evaluate=True)
    never = config.train.eval_every == 0
    if never and any(source.evaluated == HELD_OUT for source in sources.values()):
        raise DataError(
            "the run has held no documents out (train.eval_every: 0); name texts that it "
            "wasn't trained on with --files or --dataset"
        )
    others = {} if never else open_evaluation_sets(data, tokenizer, reading)
    if joined(sources, others).corpus.fingerprint != then:
        console.warn(
            "the run's texts have changed since the checkpoint was saved: these may be other "
            "documents than it was evaluated on, and some of them trained on"
        )
    return [
        *(
            EvaluationTexts(
                *(source.evaluation(), source.evaluated, source.evaluation_corpus, name)
            )
            for name, source in sources.items()
        ),
        *(
            EvaluationTexts(
                *(other.evaluation(), "of data.eval_sets", other.corpus, name), counted=False
            )
            for name, other in others.items()
        ),
    ]


def other_texts(
    config: DataConfig, tokenizer: Tokenizer, texts: OtherTexts, console: Console
) -> EvaluationTexts:
    """Read and encode texts that aren't the run's own, all of them and whole.

    Args:
        config: the run's section `data`, which says how texts are read.
        tokenizer: of the run.
        texts: which.
        console: shows warnings.

    Raises:
        DataError: they can't be read, or there are none.
    """
    if texts.text_key:
        config = config.model_copy(update={"text_key": texts.text_key})
    reading = read_policy(config, threading.Event(), console)
    corpus = _open(config, texts, reading)
    for note in corpus.notes:
        console.warn(note)
    named = reading._replace(corpus=f"{texts.dataset or ', '.join(texts.files)}")
    stream = DocumentStream(corpus.shards, named, repeat=False, seed=None)
    documents = encode([d for d in stream if d.text], tokenizer, None)
    what = f"split {texts.split} of {texts.dataset}" if texts.dataset else ", ".join(texts.files)
    if not documents:
        raise DataError(f"{what}: no document has text")
    return EvaluationTexts(documents, f"of {what}", corpus)


def _open(config: DataConfig, texts: OtherTexts, reading: ReadPolicy) -> Corpus:
    if texts.dataset is None:
        return find_files("--files", list(texts.files), config.text_key, config.document_separator)
    require_package("datasets", "--dataset")
    from chomp.data.sources.huggingface import DatasetName, open_dataset  # heavy: only where needed

    return open_dataset("--split", DatasetName(texts.dataset), texts.split, reading)
