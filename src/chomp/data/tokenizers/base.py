"""Tokenizers: text to ids and back; the byte tokenizer, and which one a config asks for."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from chomp.config.data import TokenizerConfig
from chomp.errors import DataError
from chomp.system.json_text import parse_json

SNAPSHOT_FILE = "chomp_tokenizer.json"


class SpecialIds(NamedTuple):
    """Ids of the control tokens; None where there is no such token."""

    pad: int | None
    bos: int | None
    eos: int | None


MODEL_DEFAULTS = SpecialIds(pad=0, bos=1, eos=2)


class Tokenizer(Protocol):
    """Text to ids and back."""

    vocab_size: int
    """Ids are below this."""
    pad_id: int | None
    bos_id: int | None
    eos_id: int | None
    fingerprint: str
    """Equal for tokenizers that give equal ids."""
    notes: Sequence[str]
    """Messages for the user about the tokenizer."""

    def encode_batch(self, texts: list[str]) -> list[np.ndarray]:
        """Encode documents, with BOS and EOS if the config adds them; int32, [tokens] each."""
        ...

    def encode_prompt(self, text: str) -> list[int]:
        """Encode the start of a document: BOS if the config adds it, never EOS."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, without control tokens; invalid UTF-8 is replaced."""
        ...

    def byte_count(self, ids: Sequence[int]) -> int:
        """Count the UTF-8 bytes of the text that the beginning of a document stands for.

        Of a character that is cut those count whose tokens are there.
        """
        ...

    def save(self, directory: Path) -> None:
        """Write a snapshot for `load_tokenizer`."""
        ...


class ByteTokenizer:
    """One token per UTF-8 byte: id = byte + offset."""

    def __init__(self, offset: int, special: SpecialIds, *, add_bos: bool, add_eos: bool):
        below = [i if i is not None and i < offset else None for i in special]
        self.pad_id, self.bos_id, self.eos_id = below
        self.offset = offset
        self.vocab_size = offset + 256
        self._before = control_ids("bos", self.bos_id, add_bos)
        self._after = control_ids("eos", self.eos_id, add_eos)
        self.notes: Sequence[str] = ()
        self.fingerprint = digest(f"byte {offset} {below} {self._before} {self._after}")

    def encode_batch(self, texts: list[str]) -> list[np.ndarray]:
        """Encode documents; lone surrogates are replaced by `?`."""
        return [self._encode(text, self._after) for text in texts]

    def encode_prompt(self, text: str) -> list[int]:
        """Encode the start of a document."""
        return self._encode(text, []).tolist()

    def _encode(self, text: str, after: list[int]) -> np.ndarray:
        data = np.frombuffer(text.encode("utf-8", "replace"), np.uint8)
        before = self._before
        ids = np.empty(len(before) + len(data) + len(after), np.int32)
        ids[: len(before)] = before
        np.add(data, self.offset, out=ids[len(before) : len(before) + len(data)], dtype=np.int32)
        ids[len(before) + len(data) :] = after
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids; ids that are no bytes are left out."""
        data = np.asarray(ids, np.int64) - self.offset
        return data[(data >= 0) & (data < 256)].astype(np.uint8).tobytes().decode(errors="replace")

    def byte_count(self, ids: Sequence[int]) -> int:
        """Count the bytes among ids."""
        data = np.asarray(ids, np.int64) - self.offset
        return int(np.count_nonzero((data >= 0) & (data < 256)))

    def save(self, directory: Path) -> None:
        """Write a snapshot."""
        special = SpecialIds(self.pad_id, self.bos_id, self.eos_id)
        write_snapshot(directory, {"kind": "byte", "offset": self.offset, **special._asdict()})


def control_ids(name: str, token: int | None, add: bool) -> list[int]:
    """Return the control tokens to add: none, or this one.

    Raises DataError if it is to be added and doesn't exist.
    """
    if not add:
        return []
    if token is None:
        raise DataError(
            f"data.tokenizer.add_{name}: the tokenizer has no {name.upper()} token; "
            f"set it to false, or use a tokenizer that has one"
        )
    return [token]


def digest(*parts: str) -> str:
    """Return a short digest of texts."""
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()


def write_snapshot(directory: Path, content: dict[str, str | int | None]) -> None:
    """Write the file by which `load_tokenizer` knows a snapshot."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / SNAPSHOT_FILE).write_text(json.dumps(content, indent=2) + "\n")


def load_tokenizer(
    config: TokenizerConfig,
    snapshot: Path | None = None,
    *,
    special: SpecialIds = MODEL_DEFAULTS,
) -> Tokenizer:
    """Load the tokenizer that a config describes.

    Args:
        config: the section `data.tokenizer`.
        snapshot: a folder written by `save`, used instead of the config's own source.
        special: the model's ids, for the byte tokenizer and without `auto_set_special_tokens`.

    Raises DataError if it can't be found or loaded, or lacks a token that is to be added.
    """
    add = {"add_bos": config.add_bos, "add_eos": config.add_eos}
    if snapshot is not None:
        special = read_special_ids(snapshot)
    if config.kind == "byte":
        return ByteTokenizer(config.byte_offset, special, **add)
    from chomp.data.tokenizers.huggingface import load_hf_tokenizer

    return load_hf_tokenizer(config, snapshot, special)


def read_special_ids(snapshot: Path) -> SpecialIds:
    """Read the special ids of a snapshot; raises DataError if it isn't one."""
    path = snapshot / SNAPSHOT_FILE
    try:
        content = parse_json(path.read_text())
        ids = SpecialIds(content["pad"], content["bos"], content["eos"])
        if not all(isinstance(i, int | None) for i in ids):
            raise TypeError(f"pad, bos and eos must be ids or null (got {list(ids)})")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: not a tokenizer snapshot: {error}; put back the folder {snapshot}, or move "
            "it away: the tokenizer is then loaded anew and compared with the run's"
        ) from error
    return ids
