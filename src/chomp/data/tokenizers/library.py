"""Tokenizers of the `tokenizers` library, and those that exist only in Python."""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from chomp.data.tokenizers.base import SpecialIds, digest, write_snapshot
from chomp.data.tokenizers.byte_counts import bytewise, counter_of
from chomp.data.tokenizers.frame import Frame
from chomp.data.tokenizers.panics import explained
from chomp.data.tokenizers.plain_text import check_repeats, spelled_controls
from chomp.errors import DataError

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"


class FastTokenizer:
    """A tokenizer of the `tokenizers` library, on all cores.

    Its own template, truncation and padding are not used, and text that spells a control token
    (`</s>`) is encoded as text.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        special: SpecialIds,
        *,
        add_bos: bool,
        add_eos: bool,
        notes: Sequence[str] = (),
    ):
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = True
        _make_special(backend, special)
        self._backend = backend
        self.notes: Sequence[str] = tuple(notes)
        self.pad_id, self.bos_id, self.eos_id = special
        self.vocab_size = max(backend.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        text = backend.to_str()
        content = json.loads(text)
        self._counter = counter_of(content, self)
        names = {
            i: token.content
            for i, token in backend.get_added_tokens_decoder().items()
            if token.special and token.content != _unknown(content["model"])
        }
        leaks = spelled_controls(names, self)
        frame = self._frame = Frame.of(special, leaks, add_bos=add_bos, add_eos=add_eos)
        told = [str(leaks)] * bool(leaks)
        self.fingerprint = digest(text, f"{special} {frame.before} {frame.after}", *told)
        added = backend.get_added_tokens_decoder().items()
        check_vocabulary(
            backend.get_vocab(with_added_tokens=True).values(),
            [i for i, token in added if token.special],
        )
        check_repeats(self)

    @explained
    def plain(self, text: str) -> list[int]:
        """Return the ids of a text."""
        return self._backend.encode(text, add_special_tokens=False).ids

    def characters(self, text: str) -> list[int]:
        """Return the ids of each character of a text by itself."""
        return [token.id for char in text for token in self._backend.model.tokenize(char)]

    @explained
    def encode_batch(self, texts: list[str]) -> list[np.ndarray]:
        """Encode documents."""
        encodings = self._backend.encode_batch_fast(texts, add_special_tokens=False)
        return [self._frame.document(encoding.ids) for encoding in encodings]

    def encode_prompt(self, text: str) -> list[int]:
        """Encode the start of a document."""
        return self._frame.prompt(self.plain(text))

    @explained
    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, without control tokens."""
        return self._backend.decode(list(ids), skip_special_tokens=True)

    def token(self, token_id: int) -> str:
        """Return how the library writes a token."""
        return self._backend.id_to_token(token_id) or ""

    def byte_count(self, ids: Sequence[int]) -> int:
        """Count the bytes of the text that the beginning of a document stands for."""
        return self._counter(ids)

    def save(self, directory: Path) -> None:
        """Write a snapshot, which `AutoTokenizer` of transformers loads too."""
        special = SpecialIds(self.pad_id, self.bos_id, self.eos_id)
        write_snapshot(directory, {"kind": "hf", **special._asdict()})
        # Not with its own `save`, whose error on a full disk is a bare Exception.
        (directory / TOKENIZER_FILE).write_text(self._backend.to_str(pretty=True), encoding="utf-8")
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
        }
        config |= {
            f"{role}_token": self.token(token_id)
            for role, token_id in special._asdict().items()
            if token_id is not None and self.token(token_id)
        }
        (directory / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


class SlowTokenizer:
    """A tokenizer that exists only in Python, used through transformers."""

    def __init__(
        self,
        tokenizer: Any,
        special: SpecialIds,
        *,
        add_bos: bool,
        add_eos: bool,
        notes: Sequence[str] = (),
    ):
        self._tokenizer = tokenizer
        self.notes: Sequence[str] = tuple(notes)
        self.pad_id, self.bos_id, self.eos_id = special
        vocabulary: dict[str, int] = tokenizer.get_vocab()
        self.vocab_size = max(vocabulary.values(), default=-1) + 1
        content = json.dumps(sorted(vocabulary.items()))
        name = type(tokenizer).__name__
        controls = {i: vocabulary_text(vocabulary, i) for i in tokenizer.all_special_ids}
        special_ids = set(controls)
        controls.pop(tokenizer.unk_token_id, None)
        self._counter = bytewise(vocabulary, special_ids) or counter_of({}, self)
        leaks = spelled_controls(controls, self)
        frame = self._frame = Frame.of(special, leaks, add_bos=add_bos, add_eos=add_eos)
        # Earlier versions encoded spelled control tokens as these: the fingerprint tells.
        how = f"controls are text {leaks}"
        self.fingerprint = digest(name, content, f"{special} {frame.before} {frame.after}", how)
        check_vocabulary(vocabulary.values(), special_ids)
        check_repeats(self)

    def plain(self, text: str) -> list[int]:
        """Return the ids of a text."""
        return self._tokenizer(
            text, add_special_tokens=False, split_special_tokens=True, verbose=False
        )["input_ids"]

    def characters(self, text: str) -> list[int]:
        """Return the ids of each character of a text by itself."""
        return [i for char in text for i in self.plain(char)]

    def encode_batch(self, texts: list[str]) -> list[np.ndarray]:
        """Encode documents, one by one."""
        return [self._frame.document(self.plain(text)) for text in texts]

    def encode_prompt(self, text: str) -> list[int]:
        """Encode the start of a document."""
        return self._frame.prompt(self.plain(text))

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, without control tokens."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=True)

    def token(self, token_id: int) -> str:
        """Return how the library writes a token."""
        return self._tokenizer.convert_ids_to_tokens(token_id) or ""

    def byte_count(self, ids: Sequence[int]) -> int:
        """Count the bytes of the text that the beginning of a document stands for."""
        return self._counter(ids)

    def save(self, directory: Path) -> None:
        """Write a snapshot."""
        special = SpecialIds(self.pad_id, self.bos_id, self.eos_id)
        write_snapshot(directory, {"kind": "hf", **special._asdict()})
        self._tokenizer.save_pretrained(str(directory))


def vocabulary_text(vocabulary: Mapping[str, int], token_id: int) -> str:
    """Return the token with an id; empty if there is none."""
    return next((token for token, i in vocabulary.items() if i == token_id), "")


def _make_special(backend: tokenizers.Tokenizer, special: SpecialIds) -> None:
    """Have the tokens that are used as control tokens treated as such: text isn't cut at them."""
    added = backend.get_added_tokens_decoder()
    for token_id in special:
        token = added.get(token_id) if token_id is not None else None
        if token is not None and not token.special:
            backend.add_special_tokens([tokenizers.AddedToken(token.content, special=True)])


def _unknown(model: Mapping[str, Any]) -> str | None:
    if isinstance(number := model.get("unk_id"), int):
        return model["vocab"][number][0]
    return model.get("unk_token")


def check_vocabulary(ids: Collection[int], special: Collection[int]) -> None:
    """Check that a tokenizer has more than control tokens. Raises DataError.

    transformers makes one without a vocabulary where the file of it is missing.
    """
    if len(set(ids) - set(special)) < 2:
        raise DataError(
            "data.tokenizer: has no vocabulary, only control tokens: the file that holds it "
            "(tokenizer.json, tokenizer.model, vocab.txt, ...) is missing"
        )
