"""Corpora of local files, of the text in the config, and the standard library."""

import os
import platform
import sysconfig
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from chomp.config.sources import FileSource
from chomp.data.resume import check_place
from chomp.data.sources.decompress import broken_compression, decompressed
from chomp.data.sources.documents import Shard
from chomp.data.sources.fingerprint import Fingerprint, digest_files, digest_texts
from chomp.data.sources.formats import (
    ARROW_SUFFIXES,
    LINES_SUFFIXES,
    TEXT_SUFFIXES,
    read_file,
    value_row,
)
from chomp.data.sources.local_file import LocalFile, find_local_file, open_regular, unreadable
from chomp.data.sources.patterns import FoundFile, Inode, find_paths
from chomp.data.sources.rows import BrokenFileError, Row
from chomp.data.sources.unicode_text import encoding_of, first_bytes
from chomp.errors import DataError
from chomp.system.extras import require_package

NOT_LIBRARY = {"__pycache__", "site-packages", "dist-packages", "test", "tests", "idle_test"}
MARKED = (*TEXT_SUFFIXES, *LINES_SUFFIXES)
"""Files that may begin with a byte order mark."""


class Corpus(NamedTuple):
    """The shards of a split, and what identifies their content."""

    shards: Sequence[Shard]
    fingerprint: Fingerprint
    notes: Sequence[str] = ()
    """Messages for the user about the corpus."""


class FileShard(NamedTuple):
    """A local file."""

    file: LocalFile
    text_key: str
    separator: str | None = None
    """Between the documents of a text file."""

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
                for found in read_file(opened, self.name, start, self.text_key, self.separator):
                    self.file.check(opened)  # after each read: nothing of a changed file gets out
                    yield found
            except BrokenFileError:
                self.file.check(opened)
                raise
            self.file.check(opened)


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


def find_files(
    key: str,
    sources: Sequence[str | FileSource],
    text_key: str,
    separator: str | None = None,
    not_these: Collection[Inode] = (),
) -> Corpus:
    """Find the files of paths, folders and globs, each once, sorted.

    Args:
        key: the config's key, for messages.
        sources: what it names.
        text_key: for sources that don't give their own.
        separator: between the documents of a text file.
        not_these: files of another use, which are left out.

    Raises DataError if a source names no file, or one that can't be read.
    """
    found = find_paths(key, sources, text_key, not_these)
    corpus = local_files(found.files, separator)
    return corpus._replace(notes=[*found.notes, *corpus.notes])


def local_files(files: Sequence[FoundFile], separator: str | None = None) -> Corpus:
    """Make a corpus of local files, in the order given. Raises DataError if one can't be read.

    Raises ConfigError if the package that reads them is missing.
    """
    if arrow := [file.path for file in files if file.path.endswith(ARROW_SUFFIXES)]:
        require_package("pyarrow", arrow[0])
    # Before they are digested: a change from here on is one to what the fingerprint says.
    found = [find_local_file(file.path) for file in files]
    paths = [file.path for file in files]
    fingerprint = digest_files(paths)
    if len({file.text_key for file in files}) > 1:
        fingerprint["text_keys"] = str(digest_texts([file.text_key for file in files])["digest"])
    if separator is not None and any(path.endswith(TEXT_SUFFIXES) for path in paths):
        fingerprint["document_separator"] = separator
    shards = [
        FileShard(local, file.text_key, separator) for local, file in zip(found, files, strict=True)
    ]
    marked = {path: mark for path in paths if path.endswith(MARKED) and (mark := _mark(path))}
    # Earlier versions took the marks for text, but for those of JSON lines in UTF-8.
    if news := [path for path in marked if marked[path] != "utf-8" or path.endswith(TEXT_SUFFIXES)]:
        fingerprint["byte_order_marks"] = len(news)
    others = [path for path in marked if marked[path] != "utf-8"]
    notes = [
        f"{path}: read as {marked[path][:6].upper()}, by its byte order mark" for path in others[:3]
    ]
    notes += [f"and {len(others) - 3} more files with such marks"] * (len(others) > 3)
    return Corpus(shards, fingerprint, notes)


def _mark(path: str) -> str:
    """Return the encoding that a file's byte order mark names; empty without one."""
    try:
        with open_regular(path) as file:
            lines = path.endswith(LINES_SUFFIXES)
            encoding, size = encoding_of(first_bytes(decompressed(file, path) if lines else file))
    except broken_compression():
        return ""  # said where it is read
    except OSError as error:
        raise unreadable(error) from error
    return encoding if size else ""


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
    corpus = local_files([FoundFile(path, "text") for path in paths])
    return Corpus(corpus.shards, {"python": platform.python_version(), **corpus.fingerprint})


def given_texts(texts: Sequence[str]) -> Corpus:
    """Make a corpus of the texts in a config."""
    if not texts:
        raise DataError("data.local_text: no text given")
    return Corpus([TextShard(texts)], digest_texts(texts))
