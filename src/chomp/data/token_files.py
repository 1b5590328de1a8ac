"""The files of a prepared corpus: shards of tokens, their documents, and the manifest.

A shard is two NumPy files, `train-00000.tokens.npy` and `train-00000.documents.npy`: the tokens of
its documents one after the other, and a record for each.
"""

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import xxhash

from chomp.data.fingerprint import Fingerprint
from chomp.data.local_file import open_regular, unreadable
from chomp.data.packing import Encoded
from chomp.errors import DataError, DiskError
from chomp.json_text import parse_json
from chomp.whole_file import replace_text, sync_folder

FORMAT = 1
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
    """What the manifest says about a shard."""

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
    """What a prepared corpus is. The counts are in its shards."""

    plan: dict[str, Any]
    """What it was made from and how: equal plans give equal corpora."""
    sources: list[str]
    """Names of the shards that the documents come from."""
    evaluation_sources: list[str]
    """The same for the evaluation documents, where they have a corpus of their own."""
    shards: list[ShardInfo]
    evaluation: list[ShardInfo]
    """Documents that are only evaluated on: one shard or none."""
    skipped_at_end: int
    """Documents left out behind the last one."""
    end_alone: bool
    """The corpus's first document is kept apart: it takes no such count along."""

    @property
    def all_shards(self) -> list[ShardInfo]:
        """Those trained on and those evaluated on."""
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


def manifest_from_values(values: dict[str, Any]) -> Manifest:
    """Return what `as_values` made values of. Raises KeyError or TypeError if it isn't that."""
    shards, evaluation = (
        [ShardInfo(**shard) for shard in values[key]] for key in ("shards", "evaluation")
    )
    return Manifest(
        *(values["plan"], values["sources"], values["evaluation_sources"]),
        *(shards, evaluation, values["skipped_at_end"], values["end_alone"]),
    )


def read_json(path: Path) -> dict[str, Any]:
    """Read a file of a prepared corpus. Raises DataError if that can't be done."""
    try:
        with open_regular(str(path)) as file:
            values = parse_json(file.read())
        if values["format"] != FORMAT:
            raise DataError(
                f"{path}: format {values['format']!r} is not known here (this chomp writes "
                f"{FORMAT}); prepare the corpus again"
            )
    except OSError as error:
        raise unreadable(error) from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: damaged ({error!r}); prepare the corpus again") from error
    return values


def token_type(vocab_size: int) -> np.dtype:
    """Return the smallest type that holds the ids of a vocabulary."""
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


def records_of(documents: Sequence[Encoded]) -> np.ndarray:
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
        folder: of the corpus.
        name: of the shard.
        records: of its documents; gets the starts.
        tokens: of all documents, one after the other.

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
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    parts = [header.getvalue(), array.view(np.uint8).data]
    temporary = path.with_name(path.name + ".tmp")

    def write() -> None:
        try:
            with temporary.open("wb") as file:
                for part in parts:  # np.save loses the reason when the disk is full
                    file.write(part)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)

    on_disk(path, write)
    digest = xxhash.xxh3_128()
    for part in parts:
        digest.update(part)
    return sum(len(part) for part in parts), digest.hexdigest()


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Replace a file of JSON. Raises DiskError if it can't be written."""
    text = json.dumps({"format": FORMAT} | values, indent=1) + "\n"
    on_disk(path, lambda: replace_text(path, text))


def on_disk(path: Path, write: Callable[[], None]) -> None:
    """Write something; raises DiskError, with what to do, if that fails."""
    try:
        write()
    except OSError as error:
        raise DiskError(
            f"{path}: can't be written: {error.strerror or error}; the shards that are finished "
            "stay: make room and give the same command again"
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
    tokens, records = (np.load(folder / shard.file(kind), mmap_mode="r") for kind in KINDS)
    lengths = records["tokens"]
    if not np.array_equal(records["start"], np.cumsum(lengths) - lengths):
        return [f"{folder / shard.file('documents')}: documents don't follow each other"]
    if (len(tokens), len(records)) != (shard.tokens, shard.documents) or lengths.sum() != len(
        tokens
    ):
        return [f"{folder / shard.name}: not as many documents and tokens as the manifest says"]
    if len(tokens) and tokens.max() >= vocab_size:
        return [f"{folder / shard.file('tokens')}: ids that the tokenizer doesn't have"]
    return []
