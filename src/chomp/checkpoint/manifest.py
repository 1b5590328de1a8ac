"""The manifest of a checkpoint: its files with sizes and digests, by which any damage is found."""

import json
import os
import stat
from pathlib import Path
from typing import Any, NamedTuple

import xxhash

from chomp.errors import DamagedError
from chomp.system.atomic_file import sync_folder
from chomp.system.json_text import parse_json

NAME = "manifest.json"
CHUNK = 1 << 20


class Manifest(NamedTuple):
    """The list of a checkpoint's files, with their sizes and digests."""

    step: int
    tokens: int
    """Targets trained on until then."""
    files: dict[str, tuple[int, str]]
    """Size in bytes and digest of each file, by its path in the checkpoint."""

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(size for size, _ in self.files.values())


def write_manifest(folder: Path, step: int, tokens: int) -> None:
    """Bring all files of `folder` to the disk, and after them a manifest that lists them.

    Raises:
        OSError: a file can't be read or the manifest can't be written.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    files = {}
    for path in paths:
        with path.open("rb") as file:
            os.fsync(file.fileno())
        files[path.relative_to(folder).as_posix()] = (path.stat().st_size, _digest(path))
    for inner in (path for path in folder.rglob("*") if path.is_dir()):
        sync_folder(inner)
    draft = folder / f"{NAME}.tmp"
    with draft.open("wb") as file:
        file.write(_encode({"step": step, "tokens": tokens, "files": files}))
        file.flush()
        os.fsync(file.fileno())
    draft.rename(folder / NAME)
    sync_folder(folder)


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of the checkpoint in `folder`, named by its step.

    Raises:
        DamagedError: there is none, or it isn't what was written.
    """
    try:
        if (folder / NAME).exists() and not (folder / NAME).is_file():
            raise DamagedError(f"{NAME} can't be read (it is not a file)")
        raw = (folder / NAME).read_bytes()
    except FileNotFoundError as error:
        raise DamagedError(f"{NAME} is missing") from error
    except OSError as error:
        raise DamagedError(f"{NAME} can't be read ({error.strerror})") from error
    try:
        content = parse_json(raw)
    except ValueError as error:
        raise DamagedError(f"{NAME} is damaged (not JSON)") from error
    # Not only the digest: each byte must be the one that was written.
    if not isinstance(content, dict) or _encode(content) != raw:
        raise DamagedError(f"{NAME} is damaged (its digest doesn't fit)")
    try:
        files = {
            str(name): (int(size), str(digest)) for name, (size, digest) in content["files"].items()
        }
        manifest = Manifest(int(content["step"]), int(content["tokens"]), files)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamagedError(f"{NAME} is damaged (it isn't one of a checkpoint)") from error
    if str(manifest.step) != folder.name:
        raise DamagedError(f"{NAME} is that of step {manifest.step}")
    return manifest


def check_sizes(folder: Path, manifest: Manifest) -> None:
    """Check that all files are there, in their sizes; reads none of them.

    Raises:
        DamagedError: names the first that isn't.
    """
    for name, (size, _) in manifest.files.items():
        try:
            found = (folder / name).stat()
        except FileNotFoundError as error:
            raise DamagedError(f"{name} is missing") from error
        except OSError as error:
            raise DamagedError(f"{name} can't be read ({error.strerror})") from error
        if not stat.S_ISREG(found.st_mode):  # a pipe would be waited for
            raise DamagedError(f"{name} is not a file")
        if found.st_size != size:
            raise DamagedError(f"{name} has {found.st_size:,} bytes instead of {size:,}")


def verify(folder: Path) -> Manifest:
    """Read all files of a checkpoint and return its manifest.

    Raises:
        DamagedError: something isn't as it was written; names the file.
    """
    manifest = read_manifest(folder)
    check_sizes(folder, manifest)
    for name, (_, digest) in manifest.files.items():
        try:
            found = _digest(folder / name)
        except OSError as error:
            raise DamagedError(f"{name} can't be read ({error.strerror})") from error
        if found != digest:
            raise DamagedError(f"{name} has changed (its digest doesn't fit)")
    return manifest


def _encode(content: dict[str, Any]) -> bytes:
    """Return the text of a manifest, with a digest over all else in it."""
    content = {key: value for key, value in content.items() if key != "digest"}
    digest = xxhash.xxh3_128_hexdigest(json.dumps(content).encode())
    return (json.dumps({"digest": digest, **content}, indent=1) + "\n").encode()


def _digest(path: Path) -> str:
    total = xxhash.xxh3_128()
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(CHUNK):
            total.update(chunk)
    return total.hexdigest()
