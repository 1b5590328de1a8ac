"""All sources of a config: opened, and seen as one."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from chomp.config.data import DataConfig
from chomp.config.sources import EvaluationSetConfig
from chomp.data.corpus import HELD_OUT, Source, find_texts, open_corpus, open_prepared, open_texts
from chomp.data.evaluation_split import EvaluationSplit
from chomp.data.packing import TokenizedDocument
from chomp.data.sources.documents import DocumentStream
from chomp.data.sources.fingerprint import Fingerprint
from chomp.data.sources.local import Corpus, find_files
from chomp.data.sources.patterns import Inode, find_paths, inode
from chomp.data.sources.read_policy import ReadPolicy
from chomp.data.tokenize import encode
from chomp.data.tokenizers.base import Tokenizer
from chomp.errors import DataError

EVALUATION = "evaluation "
"""Fingerprints of what is only evaluated on have keys that begin so."""


class OtherEvaluation(NamedTuple):
    """Documents of an entry of `data.eval_sets`."""

    corpus: Corpus
    split: EvaluationSplit
    tokenizer: Tokenizer

    def evaluation(self) -> Sequence[TokenizedDocument]:
        """Read and encode them, whole."""
        return encode(self.split.documents(), self.tokenizer, None)


def named_configs(config: DataConfig) -> dict[str, DataConfig]:
    """Return the section `data` for each source alone; a single one has an empty name."""
    return config.by_source() or {"": config}


def open_sources(
    config: DataConfig, tokenizer: Tokenizer, reading: ReadPolicy, *, evaluate: bool
) -> dict[str, Source]:
    """Open all sources of a config, each under its name; a single one has an empty name.

    Args:
        config: the section `data`.
        tokenizer: the config's.
        reading: how files are read.
        evaluate: whether there is evaluation: documents are held out only then.

    Raises DataError if one can't be opened.
    """
    only_evaluated = evaluation_files(config)
    opened: dict[str, Source] = {}
    for name, alone in named_configs(config).items():
        with source_named(name):
            if alone.backend == "tokens":
                source = open_prepared(alone, tokenizer, evaluate=evaluate)
            else:
                texts = find_texts(
                    alone,
                    reading_of(alone, reading),
                    only_evaluated=only_evaluated,
                    evaluate=evaluate,
                )
                source = open_texts(alone, tokenizer, texts, evaluate=evaluate)
        opened[name] = source._replace(
            fingerprint={"backend": alone.backend, **source.fingerprint},
            evaluated=source.evaluated if evaluate else "",
        )
    return opened


@contextmanager
def source_named(name: str) -> Iterator[None]:
    """Give an error the name of the source, if there are several."""
    try:
        yield
    except DataError as error:
        if not name:
            raise
        raise type(error)(f"data.sources, {name}: {error}") from error


def reading_of(alone: DataConfig, reading: ReadPolicy) -> ReadPolicy:
    """Return how a single source is read."""
    return reading._replace(text_key=alone.text_key)


def open_evaluation_sets(
    config: DataConfig, tokenizer: Tokenizer, reading: ReadPolicy
) -> dict[str, OtherEvaluation]:
    """Open `data.eval_sets`, by name. Raises DataError if one can't be opened."""
    opened = {}
    for texts in config.eval_sets:
        corpus = _open_texts(config, texts, reading)
        named = reading._replace(
            text_key=texts.text_key or config.text_key, corpus=f"data.eval_sets, {texts.name},"
        )
        documents = DocumentStream(corpus.shards, named, repeat=False, seed=None)
        split = EvaluationSplit(lambda d=documents: d, texts.max_samples, held_out=False)
        opened[texts.name] = OtherEvaluation(corpus, split, tokenizer)
    return opened


def _open_texts(config: DataConfig, texts: EvaluationSetConfig, reading: ReadPolicy) -> Corpus:
    text_key = texts.text_key or config.text_key
    if texts.files:
        separator = texts.document_separator or config.document_separator
        return find_files(_key(texts), texts.files, text_key, separator)
    from chomp.data.sources.huggingface import DatasetName, open_dataset  # heavy: only where needed

    dataset = DatasetName(texts.hf_dataset or "", texts.hf_name, texts.hf_revision)
    reading = reading._replace(text_key=text_key)
    return open_dataset(_key(texts), dataset, texts.hf_split, reading)


def _key(texts: EvaluationSetConfig) -> str:
    return f"data.eval_sets, {texts.name}"


def evaluation_files(config: DataConfig) -> frozenset[Inode]:
    """Return the files that are evaluated on and never trained on, of all sources together.

    Raises DataError if the config names a file that isn't there.
    """
    named = [
        *(
            ("data.eval_files", alone.eval_files, alone.text_key)
            for alone in named_configs(config).values()
            if alone.backend == "files"
        ),
        *((_key(texts), texts.files, config.text_key) for texts in config.eval_sets),
    ]
    return frozenset().union(
        *(find_paths(key, files, text_key).inodes for key, files, text_key in named if files)
    )


def check_apart(sources: Mapping[str, Source], others: Mapping[str, OtherEvaluation]) -> None:
    """Check that no file that is only evaluated on is trained on in a source.

    Raises DataError that names both.
    """
    trained = {
        _identity(shard.name): name
        for name, source in sources.items()
        for shard in source.corpus.shards
    }
    evaluated: dict[str, tuple[str | None, Corpus]] = {
        f"data.eval_sets, {name}": (None, each.corpus) for name, each in others.items()
    }
    for name, source in sources.items():
        if name and source.evaluation_corpus is not source.corpus:
            evaluated[f"data.sources, {name}"] = name, source.evaluation_corpus
    for key, (own, corpus) in evaluated.items():
        for shard in corpus.shards:
            reader = trained.get(_identity(shard.name), own)
            if reader != own:
                where = f"the source {reader}" if reader else "the data"
                raise DataError(
                    f"{key}: {shard.name}, which is evaluated on, is trained on too, in {where}; "
                    "name another file or split in one of the two"
                )


def _identity(shard: str) -> Inode | str:
    """Return what tells a shard from others: of a local file, whatever its path is."""
    try:
        return inode(shard)
    except OSError:
        return shard


def _shared_files(sources: Mapping[str, Source]) -> list[str]:
    """Return a note if sources read the same file, of which documents are held out."""
    if all(source.evaluated != HELD_OUT for source in sources.values()):
        return []
    readers: dict[Inode | str, str] = {}
    shared = [
        (shard.name, reader, name)
        for name, source in sources.items()
        for shard in source.corpus.shards
        if (reader := readers.setdefault(_identity(shard.name), name)) != name
    ]
    if not shared:
        return []
    (file, *both), more = shared[0], len(shared) - 1
    return [
        f"data.sources: {' and '.join(both)} both read {file}{f', and {more} more' * bool(more)}; "
        "what is held out of one, to evaluate on, may be trained on in the other"
    ]


def joined(sources: Mapping[str, Source], others: Mapping[str, OtherEvaluation]) -> "Joined":
    """Return the sources and evaluation sets as one, for those who look at them."""
    fingerprint = joined_fingerprint({name: each.fingerprint for name, each in sources.items()})
    for name, other in others.items():
        fingerprint |= {
            f"{EVALUATION}set {name} {k}": v for k, v in other.corpus.fingerprint.items()
        }
    notes = {name: each.notes for name, each in sources.items()}
    notes |= {name: other.corpus.notes for name, other in others.items()}
    return Joined(
        Corpus(
            [shard for source in sources.values() for shard in source.corpus.shards],
            fingerprint,
            [
                *(f"{name}: {note}" if name else note for name in notes for note in notes[name]),
                *_shared_files(sources),
            ],
        ),
        {name: source.evaluated for name, source in sources.items()}
        | dict.fromkeys(others, "of data.eval_sets"),
    )


class Joined(NamedTuple):
    """All sources, seen as one."""

    corpus: Corpus
    """The shards of all training documents; its fingerprint is also of what is evaluated on."""
    evaluated: dict[str, str]
    """What each evaluation set holds, in words, by its name; empty where there is no evaluation."""


def joined_fingerprint(prints: Mapping[str, Fingerprint]) -> Fingerprint:
    """Return one fingerprint of all sources' content, by the names of the sources."""
    if list(prints) == [""]:
        return dict(prints[""])
    return {
        f"{EVALUATION}{name} {key.removeprefix(EVALUATION)}"
        if key.startswith(EVALUATION)
        else f"{source_key(name)}{key}": value
        for name, print_ in prints.items()
        for key, value in print_.items()
    }


def source_key(name: str) -> str:
    """Return how the keys of a source's fingerprint begin among those of several."""
    return f"source {name} "


def source_of(key: str) -> str | None:
    """Return the name of the source whose fingerprint has a key; None: it isn't of a mixture."""
    kind, _, rest = key.partition(" ")
    return rest.partition(" ")[0] if kind == "source" and " " in rest else None


def open_whole_corpus(config: DataConfig, reading: ReadPolicy) -> Corpus:
    """Open the training documents of all sources as one corpus, to look at them.

    Raises DataError if it can't be opened.
    """
    only_evaluated = evaluation_files(config)
    corpora: dict[str, Corpus] = {}
    for name, alone in named_configs(config).items():
        corpus = open_corpus(alone, reading_of(alone, reading), None, only_evaluated)
        fingerprint: Fingerprint = {"backend": alone.backend, **corpus.fingerprint}
        corpora[name] = corpus._replace(fingerprint=fingerprint)
    return Corpus(
        [shard for corpus in corpora.values() for shard in corpus.shards],
        joined_fingerprint({name: corpus.fingerprint for name, corpus in corpora.items()}),
    )
