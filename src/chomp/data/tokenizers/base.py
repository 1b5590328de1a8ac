"""Tokenizers: text to ids and back, control tokens, and the snapshot in a run folder."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from chomp.errors import DataError
from chomp.system.json_text import parse_json

SNAPSHOT_FILE = "chomp_tokenizer.json"


class SpecialIds(NamedTuple):
    """Ids of the control tokens; None where there is no such token."""

    pad: int | None
    bos: int | None
    eos: int | None


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
