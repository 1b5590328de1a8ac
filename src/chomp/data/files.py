"""Corpora of local files: globs, the text in the config, and the standard library."""

import glob
import os
import platform
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from chomp.data.documents import BrokenFileError, Row, Shard
from chomp.data.fingerprint import Fingerprint, digest_files, digest_texts
from chomp.data.formats import (
    LINES_SUFFIXES,
    SUFFIXES,
    TEXT_SUFFIXES,
    check_place,
    read_lines,
    read_parquet,
    read_text,
    value_row,
)
from chomp.data.local_file import LocalFile, find_local_file, kind_of
from chomp.errors import DataError

NOT_LIBRARY = {"__pycache__", "site-packages", "dist-packages", "test", "tests", "idle_test"}


class Corpus(NamedTuple):
    """The shards of a split, and what identifies their content."""

    shards: Sequence[Shard]
    fingerprint: Fingerprint


class FileShard(NamedTuple):
    """A local file."""

    file: LocalFile
    text_key: str

    @property
    def name(self) -> str:
        """Its path."""
        return self.file.path

    @property
    def transient(self) -> tuple[type[BaseException], ...]:
        """None: a local file is there or it isn't."""
        return ()

    def rows(self, start: int) -> Iterator[tuple[int, Row]]:
        """Yield its rows from `start` on. Raises DataError if the file changes meanwhile."""
        with self.file.open() as opened:
            try:
                for found in self._read(opened, start):
                    self.file.check(opened)  # behind each read: nothing of a changed file gets out
                    yield found
            except BrokenFileError:
                self.file.check(opened)
                raise
            self.file.check(opened)

    def _read(self, opened: BinaryIO, start: int) -> Iterator[tuple[int, Row]]:
        if self.name.endswith(TEXT_SUFFIXES):
            return read_text(opened, start)
        if self.name.endswith(LINES_SUFFIXES):
            return read_lines(opened, self.name, start, self.text_key)
        return read_parquet(opened, self.name, start, self.text_key)


class TextShard(NamedTuple):
    """Texts given in the config."""

    texts: Sequence[str]
    name: str = "data.local_text"
    transient: tuple[type[BaseException], ...] = ()

    def rows(self, start: int) -> Iterator[tuple[int, Row]]:
        """Yield the texts from number `start` on."""
        check_place(start, len(self.texts))
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
        if not found and not glob.has_magic(pattern) and matches:
            raise DataError(
                f"{key}: {pattern!r} is {kind_of(matches[0])}; name files, one by one or with a "
                f"glob such as {os.path.join(pattern, '**', '*.jsonl')!r}"
            )
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
    """Make a corpus of local files, in the order given. Raises DataError if one can't be read."""
    # Before they are digested: a change from here on is one to what the fingerprint says.
    found = [find_local_file(path) for path in paths]
    return Corpus([FileShard(file, text_key) for file in found], digest_files(paths))


def standard_library() -> Corpus:
    """Return the .py files of this Python's standard library, without its tests."""
    root = Path(sysconfig.get_paths()["stdlib"])
    paths: list[str] = []
    for folder, folders, files in os.walk(root):
        # Left out before they are walked: site-packages may hold far more than the library.
        folders[:] = [name for name in folders if name not in NOT_LIBRARY]
        paths += [os.path.join(folder, file) for file in files if file.endswith(".py")]
    paths.sort()
    if not paths:
        raise DataError(f"data.builtin: no .py files in {root}; use data.backend: files")
    corpus = local_files(paths, "text")
    return Corpus(corpus.shards, {"python": platform.python_version(), **corpus.fingerprint})


def given_texts(texts: Sequence[str]) -> Corpus:
    """Make a corpus of the texts in a config."""
    if not texts:
        raise DataError("data.local_text: no text given")
    return Corpus([TextShard(texts)], digest_texts(texts))
