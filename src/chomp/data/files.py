"""Corpora of local files: globs, the text in the config, and the standard library."""

import glob
import os
import platform
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from chomp.data.documents import Row, Shard
from chomp.data.fingerprint import Fingerprint, digest_files, digest_texts
from chomp.data.formats import (
    LINES_SUFFIXES,
    SUFFIXES,
    TEXT_SUFFIXES,
    read_lines,
    read_parquet,
    read_text,
    value_row,
)
from chomp.errors import DataError

NOT_LIBRARY = {"__pycache__", "site-packages", "dist-packages", "test", "tests", "idle_test"}


class Corpus(NamedTuple):
    """The shards of a split, and what identifies their content."""

    shards: Sequence[Shard]
    fingerprint: Fingerprint


class FileShard(NamedTuple):
    """A local file."""

    path: str
    text_key: str

    @property
    def name(self) -> str:
        """Its path."""
        return self.path

    @property
    def transient(self) -> tuple[type[BaseException], ...]:
        """None: a local file is there or it isn't."""
        return ()

    def rows(self, start: int) -> Iterator[tuple[int, Row]]:
        """Yield its rows from `start` on."""
        with open(self.path, "rb") as file:
            if self.path.endswith(TEXT_SUFFIXES):
                yield from read_text(file, start)
            elif self.path.endswith(LINES_SUFFIXES):
                yield from read_lines(file, self.path, start, self.text_key)
            else:
                yield from read_parquet(file, self.path, start, self.text_key)


class TextShard(NamedTuple):
    """Texts given in the config."""

    texts: Sequence[str]
    name: str = "data.local_text"
    transient: tuple[type[BaseException], ...] = ()

    def rows(self, start: int) -> Iterator[tuple[int, Row]]:
        """Yield the texts from number `start` on."""
        for number in range(start, len(self.texts)):
            yield number, value_row(self.texts[number], f"{self.name}, text {number + 1}")


def find_files(key: str, patterns: Sequence[str], text_key: str) -> Corpus:
    """Find the files of glob patterns, each once, sorted.

    Raises DataError if a pattern matches nothing or a file has an unknown extension.
    """
    paths: set[str] = set()
    for pattern in patterns:
        matches = glob.glob(os.path.expanduser(pattern), recursive=True, include_hidden=False)
        found = [path for path in matches if os.path.isfile(path)]
        if not found:
            raise DataError(f"{key}: no file matches {pattern!r} (in {os.getcwd()})")
        paths.update(os.path.normpath(path) for path in found)
    if not paths:
        raise DataError(f"{key}: no files given; name at least one path or glob")
    unknown = sorted(path for path in paths if not path.endswith(SUFFIXES))
    if unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise DataError(
            f"{key}: unknown kind of file: {unknown[0]}{more}; known are {', '.join(SUFFIXES)}"
        )
    return local_files(sorted(paths), text_key)


def local_files(paths: Sequence[str], text_key: str) -> Corpus:
    """Make a corpus of local files, in the order given."""
    return Corpus([FileShard(path, text_key) for path in paths], digest_files(paths))


def standard_library() -> Corpus:
    """Return the .py files of this Python's standard library, without its tests."""
    root = Path(sysconfig.get_paths()["stdlib"])
    paths = sorted(
        str(path)
        for path in root.rglob("*.py")
        if NOT_LIBRARY.isdisjoint(path.relative_to(root).parts)
    )
    if not paths:
        raise DataError(f"data.builtin: no .py files in {root}; use data.backend: files")
    corpus = local_files(paths, "text")
    return Corpus(corpus.shards, {"python": platform.python_version(), **corpus.fingerprint})


def given_texts(texts: Sequence[str]) -> Corpus:
    """Make a corpus of the texts in a config."""
    if not texts:
        raise DataError("data.local_text: no text given")
    return Corpus([TextShard(texts)], digest_texts(texts))
