"""Bytes of text that tokens stand for, also where a character is cut between two of them."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol

import numpy as np

ByteCounter = Callable[[Sequence[int]], int]

BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>")


class Decoding(Protocol):
    """The part of a tokenizer that counting needs."""

    @property
    def vocab_size(self) -> int:
        """Ids are below this."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, without control tokens."""
        ...

    def token(self, token_id: int) -> str:
        """Return how the tokenizer's library writes a token."""
        ...


def counter_of(content: Mapping[str, Any], tokenizer: Decoding) -> ByteCounter:
    """Return what counts the bytes of a document's beginning.

    Args:
        content: a `tokenizer.json`; empty: there is none.
        tokenizer: the same, loaded.
    """
    decoder = content.get("decoder") or {}
    steps = decoder.get("decoders", [decoder]) if isinstance(decoder, Mapping) else []
    kinds = [step.get("type") for step in steps]
    if kinds == ["ByteLevel"]:
        added = {token["id"]: token for token in content.get("added_tokens") or ()}
        return _ByteLevel(added, tokenizer)
    return _Decoded(tokenizer, has_bytes="ByteFallback" in kinds or not content)


def bytewise(vocabulary: Mapping[str, int], controls: Collection[int]) -> ByteCounter | None:
    """Return what counts the tokens of a vocabulary of bytes; None if it is another one's."""
    tokens = [token for token, i in vocabulary.items() if i not in controls]
    if not 0 < len(tokens) <= 256 or any(len(token) != 1 or ord(token) > 255 for token in tokens):
        return None
    return lambda ids: sum(i not in controls for i in ids)


class _ByteLevel:
    """Tokens are written in an alphabet with a character for each byte."""

    def __init__(self, added: Mapping[int, Mapping[str, Any]], tokenizer: Decoding):
        self._added, self._tokenizer = added, tokenizer

    @cached_property
    def _sizes(self) -> np.ndarray:
        return np.array([self._size(i) for i in range(self._tokenizer.vocab_size)], np.int64)

    def _size(self, token_id: int) -> int:
        if token := self._added.get(token_id):
            return 0 if token["special"] else len(token["content"].encode())
        text = self._tokenizer.token(token_id)
        return len(text) if ALPHABET.issuperset(text) else len(text.encode())

    def __call__(self, ids: Sequence[int]) -> int:
        return int(self._sizes[np.asarray(ids, np.int64)].sum())


def _alphabet() -> frozenset[str]:
    from tokenizers import pre_tokenizers

    return frozenset(pre_tokenizers.ByteLevel.alphabet())


ALPHABET = _alphabet()


class _Decoded:
    """Tokens are decoded, but for bytes at the end, whose character may be cut."""

    def __init__(self, tokenizer: Decoding, *, has_bytes: bool):
        self._tokenizer, self._has_bytes = tokenizer, has_bytes

    def __call__(self, ids: Sequence[int]) -> int:
        whole = len(ids)
        while (
            self._has_bytes
            and whole
            and BYTE_TOKEN.fullmatch(self._tokenizer.token(ids[whole - 1]))
        ):
            whole -= 1
        text = self._tokenizer.decode(ids[:whole])
        return len(text.encode("utf-8", "replace")) + len(ids) - whole
