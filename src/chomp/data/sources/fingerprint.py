"""Fingerprints: whether a corpus is still the one a run began with."""

import hashlib
import os
from collections.abc import Sequence

from chomp.data.sources.local_file import open_regular, plain_path, unreadable

Fingerprint = dict[str, str | int]

FULL_DIGEST_BYTES = 1 << 30
"""Up to this total size files are digested whole; above it by size, modification time, head and
tail, since reading a large corpus would delay every start."""
END_BYTES = 1 << 16
NAMED_FILES = 64
"""Up to this many files have an entry of their own, so that a refusal can name what changed."""


def digest_texts(texts: Sequence[str]) -> Fingerprint:
    """Identify texts by their number, size and digest."""
    total = hashlib.blake2b(digest_size=16)
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        total.update(f"{len(data)} ".encode() + data)
    return {"documents": len(texts), "digest": total.hexdigest()}


def digest_files(paths: Sequence[str]) -> Fingerprint:
    """Identify files by number, size and digest; names are relative to their common folder.

    Raises DataError if one can't be read.
    """
    try:
        size = sum(os.path.getsize(path) for path in paths)
        digests = [_digest_file(path, whole=size <= FULL_DIGEST_BYTES) for path in paths]
    except OSError as error:
        raise unreadable(error) from error
    places = [_place(path) for path in paths]
    root = os.path.commonpath([os.path.dirname(place) for place in places])
    names = [os.path.relpath(place, root) for place in places]
    lines = [f"{digest} {name}" for name, digest in zip(names, digests, strict=True)]
    total = hashlib.blake2b("\n".join(lines).encode("utf-8", "surrogateescape"), digest_size=16)
    print_: Fingerprint = {"files": len(paths), "bytes": size, "digest": total.hexdigest()}
    if len(paths) <= NAMED_FILES:
        print_ |= {f"file {name}": digest for name, digest in zip(names, digests, strict=True)}
    return print_


def copies(paths: Sequence[str], others: Sequence[str]) -> list[tuple[str, str]]:
    """Return each of some files whose content one of the others has, with that one.

    Raises DataError if one can't be read.
    """
    try:
        sizes = {path: os.path.getsize(path) for path in (*paths, *others)}
        alike = set(map(sizes.get, paths)) & set(map(sizes.get, others)) - {0}
        known = {_digest_file(path, whole=True): path for path in others if sizes[path] in alike}
        found = [path for path in paths if sizes[path] in alike]
        digests = [(path, _digest_file(path, whole=True)) for path in found]
    except OSError as error:
        raise unreadable(error) from error
    return [(path, known[digest]) for path, digest in digests if digest in known]


def _place(path: str) -> str:
    """Return an absolute path without `..`."""
    plain = os.path.abspath(path)
    if plain_path(path) == os.path.normpath(path):
        return plain
    folder, name = os.path.split(path)
    return os.path.join(os.path.realpath(folder), name)


def _digest_file(path: str, *, whole: bool) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with open_regular(path) as file:
        status = os.fstat(file.fileno())
        if whole:
            while data := file.read(1 << 20):
                digest.update(data)
            return f"{status.st_size} {digest.hexdigest()}"
        digest.update(file.read(END_BYTES))
        file.seek(max(0, status.st_size - END_BYTES))
        digest.update(file.read(END_BYTES))
    return f"{status.st_size} {digest.hexdigest()} {status.st_mtime_ns}"
