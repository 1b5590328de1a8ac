"""The files of a prepared corpus: shards of tokens, their documents, and the manifest.

A shard is two NumPy files, `train-00000.tokens.npy` and `train-00000.documents.npy`: the tokens of
its documents one after the other, and a record for each.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import xxhash
from pydantic import TypeAdapter, ValidationError

from chomp.config.data import TokenizerConfig
from chomp.data.packing import TokenizedDocument
from chomp.data.sources.fingerprint import Fingerprint
from chomp.data.sources.local_file import open_regular, unreadable
from chomp.data.token_cache.array_file import ADVICE, ArrayFile, header_of
from chomp.errors import DataError, DiskError
from chomp.system.atomic_file import remedy, replace_text, replacing
from chomp.system.json_text import parse_json

FORMAT = 2
FORMAT_WITHOUT_DIGEST = 1
"""Of earlier versions, which is read as well."""
MANIFEST = "manifest.json"
PROGRESS = "progress.json"
TOKENIZER = "tokenizer"
KINDS = ("tokens", "documents")
RECORD = np.dtype(
    [
        ("start", "<u8"),  # of its tokens in the shard's
        ("tokens", "<u8"),
        ("bytes", "<u8"),  # UTF-8, of the whole text
        ("characters", "<u8"),
        ("source", "<i8"),  # the document's key in the corpus it comes from
        ("skipped", "<u4"),
        ("truncated", "?"),
        ("repaired", "?"),
    ]
)


class ShardInfo(NamedTuple):
    """A shard's entry in the manifest."""

    name: str
    documents: int
    tokens: int
    bytes: int
    """UTF-8 bytes of the texts."""
    truncated: int
    repaired: int
    skipped: int
    sizes: dict[str, int]
    """Bytes of each of its files, by kind."""
    digests: dict[str, str]
    """XXH3 (128 bits) of each of its files, by kind."""

    def file(self, kind: str) -> str:
        """Return the name of one of its files."""
        return f"{self.name}.{kind}.npy"


class Manifest(NamedTuple):
    """The contents of a prepared corpus. The counts are in its shards."""

    plan: dict[str, Any]
    """Settings and fingerprints that it was made from: equal plans give equal corpora."""
    sources: list[str]
    """Names of the shards that the documents come from."""
    evaluation_sources: list[str]
    """The same for the evaluation documents, where they have a corpus of their own."""
    shards: list[ShardInfo]
    evaluation: list[ShardInfo]
    """Documents that are only evaluated on: one shard or none."""
    skipped_at_end: int
    """Documents left out after the last one."""
    end_alone: bool
    """The corpus's first document is kept apart: it takes no such count along."""

    @property
    def all_shards(self) -> list[ShardInfo]:
        """Shards for evaluation and for training."""
        return [*self.evaluation, *self.shards]

    @property
    def fingerprint(self) -> Fingerprint:
        """Equal for corpora that give equal batches."""
        shards = [(s.name, s.digests) for s in self.all_shards]
        settings = [self.plan["tokenizer"], self.skipped_at_end]
        text = json.dumps([settings, shards], sort_keys=True)
        return {
            "documents": sum(shard.documents for shard in self.shards),
            "tokens": sum(shard.tokens for shard in self.shards),
            "digest": hashlib.blake2b(text.encode(), digest_size=16).hexdigest(),
        }

    def as_values(self) -> dict[str, Any]:
        """Return it as values of JSON."""
        return self._asdict() | {
            "shards": [shard._asdict() for shard in self.shards],
            "evaluation": [shard._asdict() for shard in self.evaluation],
        }


_MANIFEST = TypeAdapter(Manifest)
_PLAN: dict[str, type | tuple[type, ...]] = {
    "source": dict,
    "tokenizer": dict,
    "frame": dict,
    "shard_tokens": int,
}


FRAME = 3
"""Settings that shape a document's tokens beside the tokenizer."""


def manifest_from_values(values: dict[str, Any], path: Path) -> Manifest:
    """Return what `as_values` made values of, read from `path`.

    Raises DataError if it isn't that.
    """
    keys = {key: value for key, value in values.items() if key in Manifest._fields}
    try:
        manifest = _MANIFEST.validate_python(keys, strict=True)
        for key, kind in _PLAN.items():
            if not isinstance(manifest.plan[key], kind):
                raise TypeError(f"plan.{key} is {manifest.plan[key]!r}")
        for shard in manifest.all_shards:
            if not set(KINDS) == set(shard.sizes) == set(shard.digests) or "/" in shard.name:
                raise ValueError(f"shard {shard.name!r}")
        tokenizer, frame = manifest.plan["tokenizer"], manifest.plan["frame"]
        TokenizerConfig(kind=tokenizer["kind"], byte_offset=tokenizer["byte_offset"], **frame)
        if not (isinstance(tokenizer["vocab_size"], int) and len(frame) == FRAME):
            raise TypeError(f"plan.tokenizer is {tokenizer!r}, plan.frame {frame!r}")
        if not {"evaluation", "text_key"} <= manifest.plan.keys() or "fingerprint" not in tokenizer:
            raise KeyError("plan.evaluation, plan.text_key or plan.tokenizer.fingerprint")
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: damaged ({_first_line(error)}); {ADVICE}") from error
    return manifest


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return repr(error)


def read_json(path: Path) -> dict[str, Any]:
    """Read a file of a prepared corpus. Raises DataError if it isn't what was written."""
    try:
        with open_regular(str(path)) as file:
            raw = file.read()
        values = parse_json(raw)
        if values["format"] not in (FORMAT, FORMAT_WITHOUT_DIGEST):
            raise DataError(
                f"{path}: format {values['format']!r} is not known here (this chomp writes "
                f"{FORMAT}); {ADVICE}"
            )
        # Not only the digest: each byte must be the one that was written.
        if (values["format"] == FORMAT) != ("digest" in values) or (
            values["format"] == FORMAT and _encode(values) != raw
        ):
            raise DataError(f"{path}: damaged (its digest doesn't fit); {ADVICE}")
    except OSError as error:
        raise unreadable(error) from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: damaged ({error!r}); {ADVICE}") from error
    return values


def _encode(values: dict[str, Any]) -> bytes:
    """Return the text of a file, with a digest over all else in it."""
    values = {"format": FORMAT} | {k: v for k, v in values.items() if k not in ("format", "digest")}
    digest = xxhash.xxh3_128_hexdigest(json.dumps(values).encode())
    return (json.dumps({"digest": digest, **values}, indent=1) + "\n").encode()


def token_type(vocab_size: int) -> np.dtype:
    """Return the smallest type that holds the ids of a vocabulary."""
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


def records_of(documents: Sequence[TokenizedDocument]) -> np.ndarray:
    """Return the records of documents; where their tokens start is only known in a shard."""
    return np.array(
        [
            (0, len(d.tokens), d.bytes, d.characters, d.key, d.skipped, d.truncated, d.repaired)
            for d in documents
        ],
        RECORD,
    )


def write_shard(folder: Path, name: str, records: np.ndarray, tokens: np.ndarray) -> ShardInfo:
    """Write a shard; both its files are on the disk when this returns.

    Args:
        folder: the corpus's folder.
        name: the shard's name.
        records: one for each document; gets the starts.
        tokens: those of all documents, one after the other.

    Raises DiskError if it can't be written.
    """
    records["start"] = np.cumsum(records["tokens"]) - records["tokens"]
    written = {
        kind: _write_array(folder / f"{name}.{kind}.npy", array)
        for kind, array in zip(KINDS, (tokens, records), strict=True)
    }
    return ShardInfo(
        *(name, len(records), len(tokens), int(records["bytes"].sum())),
        *(int(records[key].sum()) for key in ("truncated", "repaired", "skipped")),
        sizes={kind: size for kind, (size, _) in written.items()},
        digests={kind: digest for kind, (_, digest) in written.items()},
    )


def _write_array(path: Path, array: np.ndarray) -> tuple[int, str]:
    parts = [header_of(array), array.view(np.uint8).data]

    with disk_errors(path), replacing(path) as file:
        for part in parts:  # np.save loses the reason when the disk is full
            file.write(part)
    digest = xxhash.xxh3_128()
    for part in parts:
        digest.update(part)
    return sum(len(part) for part in parts), digest.hexdigest()


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Replace a file of JSON. Raises DiskError if it can't be written."""
    with disk_errors(path):
        replace_text(path, _encode(values).decode())


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Raise DiskError, with what to do, if something can't be written to `path`."""
    try:
        yield
    except OSError as error:
        raise DiskError(
            f"{path}: can't be written: {error.strerror or error}; the shards that are finished "
            f"stay: {remedy(error)} and give the same command again"
        ) from error


def damage(folder: Path, shard: ShardInfo, *, read: bool) -> Iterator[str]:
    """Say what is wrong with the files of a shard: presence and size, and with `read` content."""
    for kind in KINDS:
        path = folder / shard.file(kind)
        try:
            with open_regular(str(path)) as file:
                size = os.fstat(file.fileno()).st_size
                if size != shard.sizes[kind]:
                    yield f"{path}: {size:,} bytes in place of {shard.sizes[kind]:,}"
                elif read and digest_file(file) != shard.digests[kind]:
                    yield f"{path}: not what was written (its digest differs)"
        except FileNotFoundError:
            yield f"{path}: missing"
        except OSError as error:
            yield f"{path}: can't be read: {error.strerror}"
        except DataError as error:
            yield str(error)


def digest_file(file: BinaryIO) -> str:
    """Return the digest of a file's content."""
    digest = xxhash.xxh3_128()
    while data := file.read(1 << 20):
        digest.update(data)
    return digest.hexdigest()


def content_damage(folder: Path, shard: ShardInfo, vocab_size: int) -> list[str]:
    """Read a shard whole; say what is wrong with it."""
    if found := list(damage(folder, shard, read=True)):
        return found
    dtypes, counts = (token_type(vocab_size), RECORD), (shard.tokens, shard.documents)
    try:
        tokens, records = (
            ArrayFile(folder / shard.file(kind), dtype, count).read_all()
            for kind, dtype, count in zip(KINDS, dtypes, counts, strict=True)
        )
    except DataError as error:
        return [str(error)]
    lengths = records["tokens"]
    if not np.array_equal(records["start"], np.cumsum(lengths) - lengths):
        return [f"{folder / shard.file('documents')}: documents don't follow each other"]
    if lengths.sum() != len(tokens):
        return [f"{folder / shard.name}: not as many documents and tokens as the manifest says"]
    if len(tokens) and tokens.max() >= vocab_size:
        return [f"{folder / shard.file('tokens')}: ids that the tokenizer doesn't have"]
    return []
