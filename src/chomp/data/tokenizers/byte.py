"""The byte tokenizer."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from chomp.data.tokenizers.base import SpecialIds, control_ids, digest, write_snapshot


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
