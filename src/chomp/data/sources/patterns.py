"""The files that a config's paths, folders and globs name: each once, and none lost in silence."""

import glob
import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from fnmatch import translate
from typing import NamedTuple

from chomp.config.sources import FileSource
from chomp.data.sources.formats import SUFFIXES
from chomp.data.sources.local_file import kind_of, plain_path
from chomp.errors import DataError

RUN_FILES = {".lock", "heartbeat", "run.json", "config_original.yaml", "config_resolved.json"}
"""A folder with two of these is a run's."""
TOKEN_FILES = {"manifest.json", "tokenizer"}
"""A folder with both of these is a prepared corpus."""
SHOWN = 3
"""Names of files that a note gives."""

Inode = tuple[int, int]


class FoundFile(NamedTuple):
    """A file, and the key of its texts."""

    path: str
    text_key: str


class FoundFiles(NamedTuple):
    """The files that a key of the config names."""

    files: list[FoundFile]
    """By path."""
    notes: list[str]
    """Messages about files that were left out."""

    @property
    def inodes(self) -> frozenset[Inode]:
        """The files themselves, whatever their paths."""
        return frozenset(inode(file.path) for file in self.files)


def find_paths(
    key: str,
    sources: Sequence[str | FileSource],
    text_key: str,
    not_these: Collection[Inode] = (),
) -> FoundFiles:
    """Find the files of paths, folders and globs.

    Args:
        key: the config's key, for messages.
        sources: what it names.
        text_key: for sources that don't give their own.
        not_these: files of another use, which are left out.

    Raises DataError if a source names nothing, or something that can't be read.
    """
    if not sources:
        raise DataError(f"{key}: no files given; name at least one path, folder or glob")
    keys: dict[str, str] = {}
    own: list[str] = []
    notes: list[str] = []
    for source in sources:
        pattern, of_source = source, text_key
        if isinstance(source, FileSource):
            pattern, of_source = source.path, source.text_key or text_key
        assert isinstance(pattern, str)
        found, left_out = _files_of(key, os.path.expanduser(pattern), own)
        notes += left_out
        for path in map(plain_path, found):
            if keys.setdefault(path, of_source) != of_source:
                raise DataError(
                    f"{key}: {path} is named twice, with the text_key {keys[path]!r} and with "
                    f"{of_source!r}; name it once"
                )
    paths = _each_once(keys, not_these)
    if own:
        notes.append(f"{key}: files of runs and prepared corpora are left out: {_some(own)}")
    if len(paths.shared):
        notes.append(
            f"{key}: evaluation files that it names too are not trained on: {_some(paths.shared)}"
        )
    if not paths.kept:
        raise DataError(f"{key}: no file is left; {'; '.join(notes)}")
    return FoundFiles([FoundFile(path, keys[path]) for path in sorted(paths.kept)], notes)


def _files_of(key: str, pattern: str, own: list[str]) -> tuple[list[str], list[str]]:
    """Return a source's files, and notes; those of runs go to `own`."""
    notes = []
    if os.path.lexists(pattern):  # a name with [ ] in it is a name first
        _check_link(key, pattern)
        if os.path.isfile(pattern):
            return _known_kinds(key, [pattern]), []
        if not os.path.isdir(pattern):
            raise _no_file(key, pattern)
        base = pattern
        every = list(_files_below(key, pattern))
        found = [path for path in every if path.endswith(SUFFIXES) and os.path.isfile(path)]
        if others := sorted(set(every) - set(found)):
            notes.append(f"{key}: {pattern}: other kinds of files are left out: {_some(others)}")
        if not found:
            raise DataError(
                f"{key}: the folder {pattern!r} holds no file of a known kind; known are "
                f"{', '.join(SUFFIXES)}"
            )
    else:
        base = _fixed_part(pattern)
        found = []
        for path in expand(key, pattern) if glob.has_magic(pattern) else ():
            _check_link(key, path)
            if os.path.isfile(path):
                found.append(path)
            elif not os.path.isdir(path):
                raise _no_file(key, path)
        if not found:
            where = "" if os.path.isabs(pattern) else f" (in {os.getcwd()})"
            raise DataError(f"{key}: no file matches {pattern!r}{where}{_not_a_pattern(pattern)}")
    folders: dict[str, bool] = {}
    others = [path for path in found if not _is_own(path, base, folders)]
    own += sorted(set(found) - set(others))
    return _known_kinds(key, others), notes


def _not_a_pattern(text: str) -> str:
    """Say what a name holds that isn't understood in it; empty: nothing that is known."""
    if "://" in text:
        return "; it is a URL, and only local files are read: download it first"
    if re.search(r"\$\w|\$\{", text):
        return "; variables of the shell stay as they are: write the path out"
    if re.search(r"\{.*,.*\}", text):
        return "; braces stay as they are: give each path in the list"
    if re.search(r"\S, *\S|\w\.\w+ +\S", text):
        return "; if these are several, give each in the list: [a.txt, b.txt]"
    return ""


def _no_file(key: str, path: str) -> DataError:
    return DataError(f"{key}: {path!r} is {kind_of(path)}; name files or folders")


def _check_link(key: str, path: str) -> None:
    if not os.path.exists(path):
        reason = "whose target is not there"
        try:
            os.stat(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            reason = f"that can't be followed ({error.strerror})"
        raise DataError(
            f"{key}: {path} is a link to {os.readlink(path)!r} {reason}; mend it or remove it"
        )


def _known_kinds(key: str, paths: list[str]) -> list[str]:
    unknown = sorted(path for path in paths if not path.endswith(SUFFIXES))
    if unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise DataError(
            f"{key}: unknown kind of file: {unknown[0]}{more}; known are {', '.join(SUFFIXES)}"
        )
    return paths


class _Kept(NamedTuple):
    kept: list[str]
    shared: list[str]


def _each_once(paths: Iterable[str], not_these: Collection[Inode]) -> _Kept:
    """Leave out other names, through links, of files that are there already."""
    by_inode: dict[Inode, list[str]] = {}
    for path in sorted(paths):
        by_inode.setdefault(inode(path), []).append(path)
    shared = [path for file in not_these for path in by_inode.pop(file, [])]
    kept = []
    for names in by_inode.values():
        if len(names) == 1:
            kept += names
            continue
        real: dict[str, str] = {}
        for name in sorted(names, key=lambda name: os.path.realpath(name) != os.path.abspath(name)):
            real.setdefault(os.path.realpath(name), name)
        kept += real.values()  # hard links have several real names
    return _Kept(kept, sorted(shared))


def inode(path: str) -> Inode:
    """Return what tells a file from others, whatever its paths."""
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _is_own(path: str, base: str, known: dict[str, bool]) -> bool:
    """Return whether chomp wrote the file: a folder of its path, from `base` on, is a run's."""
    folder = os.path.dirname(path)
    if folder not in known:
        names = set(os.listdir(folder or "."))
        known[folder] = len(names & RUN_FILES) >= 2 or names >= TOKEN_FILES
        if not known[folder] and len(folder) > len(base.rstrip(os.sep)):
            known[folder] = _is_own(folder, base, known)
    return known[folder]


def _fixed_part(pattern: str) -> str:
    parts = pattern.split(os.sep)
    fixed = next((i for i, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    return os.sep.join(parts[:fixed])


def expand(key: str, pattern: str) -> Iterator[str]:
    """Yield what matches a glob, as `glob.glob(recursive=True)` does, without hidden names.

    That one follows links in circles, and passes over folders that it may not read.
    """
    root = os.sep if pattern.startswith(os.sep) else ""
    yield from _expand(key, root, [part for part in pattern.split(os.sep) if part])


def _expand(key: str, base: str, parts: list[str]) -> Iterator[str]:
    part, *rest = parts
    if part == "**":
        for folder in _folders_below(key, base):
            yield from _expand(key, folder, rest or ["*"])
        return
    if glob.has_magic(part):
        matches = re.compile(translate(part)).match
        hidden = part.startswith(".")
        names = [n for n in _names(key, base) if matches(n) and (hidden or not n.startswith("."))]
        found = [os.path.join(base, name) for name in names]
    else:
        found = [os.path.join(base, part)]
    for path in found:
        if not rest:
            if os.path.lexists(path):
                yield path
        elif os.path.isdir(path):
            yield from _expand(key, path, rest)


def _files_below(key: str, folder: str) -> Iterator[str]:
    for inner in _folders_below(key, folder):
        for name in _names(key, inner):
            path = os.path.join(inner, name)
            if not name.startswith(".") and not os.path.isdir(path):
                _check_link(key, path)
                yield path


def _folders_below(key: str, base: str) -> Iterator[str]:
    """Yield a folder and those below it, each once however links lead to it."""
    seen: set[Inode] = set()
    folders, links = [base], []  # links come last: what they lead to has a name of its own, mostly
    while folders or links:
        folder = (folders or links).pop()
        found = inode(folder or ".")
        if found in seen:
            continue
        seen.add(found)
        yield folder
        for name in _names(key, folder):
            path = os.path.join(folder, name)
            if not name.startswith(".") and os.path.isdir(path):
                (links if os.path.islink(path) else folders).append(path)


def _names(key: str, folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder or "."))
    except OSError as error:
        raise DataError(f"{key}: {folder or '.'} can't be read: {error.strerror}") from error


def _some(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - SHOWN:,} more" if len(paths) > SHOWN else ""
    return ", ".join(paths[:SHOWN]) + more
