"""Tokenizers of the `tokenizers` library, and those that exist only in Python."""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from chomp.data.tokenizers.base import SpecialIds, control_ids, digest, write_snapshot
from chomp.data.tokenizers.byte_counts import bytewise, counter_of
from chomp.data.tokenizers.panics import explained
from chomp.errors import DataError

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
PROBE = " ".join(
    f"Some words {number}, and tokens of the tokenizer: again!" for number in range(40)
)


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
        self._before = control_ids("bos", special.bos, add_bos)
        self._after = control_ids("eos", special.eos, add_eos)
        self.vocab_size = max(backend.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        text = backend.to_str()
        content = json.loads(text)
        self._counter = counter_of(content, self)
        names = {
            i: token.content
            for i, token in backend.get_added_tokens_decoder().items()
            if token.special and token.content != _unknown(content["model"])
        }
        self._leaks = spelled_controls(names, self._plain, self._plain_pieces)
        leaks = [str(self._leaks)] * bool(self._leaks)
        self.fingerprint = digest(text, f"{special} {self._before} {self._after}", *leaks)
        added = backend.get_added_tokens_decoder().items()
        check_vocabulary(
            backend.get_vocab(with_added_tokens=True).values(),
            [i for i, token in added if token.special],
        )
        check_repeats(self._plain)

    @explained
    def _plain(self, text: str) -> list[int]:
        return self._backend.encode(text, add_special_tokens=False).ids

    def _plain_pieces(self, text: str) -> list[int]:
        return [token.id for char in text for token in self._backend.model.tokenize(char)]

    @explained
    def encode_batch(self, texts: list[str]) -> list[np.ndarray]:
        """Encode documents."""
        encodings = self._backend.encode_batch_fast(texts, add_special_tokens=False)
        return [self._framed(encoding.ids) for encoding in encodings]

    def _framed(self, ids: list[int]) -> np.ndarray:
        if self._leaks:
            ids = as_text(ids, self._leaks)
        if ids and (self._before or self._after):
            ids = [*self._before, *ids, *self._after]
        return np.array(ids, np.int32)

    def encode_prompt(self, text: str) -> list[int]:
        """Encode the start of a document."""
        return [*self._before, *as_text(self._plain(text), self._leaks)]

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
        self._before = control_ids("bos", special.bos, add_bos)
        self._after = control_ids("eos", special.eos, add_eos)
        vocabulary: dict[str, int] = tokenizer.get_vocab()
        self.vocab_size = max(vocabulary.values(), default=-1) + 1
        content = json.dumps(sorted(vocabulary.items()))
        name = type(tokenizer).__name__
        controls = {i: vocabulary_text(vocabulary, i) for i in tokenizer.all_special_ids}
        special_ids = set(controls)
        controls.pop(tokenizer.unk_token_id, None)
        self._counter = bytewise(vocabulary, special_ids) or counter_of({}, self)
        self._leaks = spelled_controls(
            controls, self._ids, lambda text: [i for char in text for i in self._ids(char)]
        )
        # Earlier versions encoded spelled control tokens as these: the fingerprint tells.
        how = f"controls are text {self._leaks}"
        self.fingerprint = digest(name, content, f"{special} {self._before} {self._after}", how)
        check_vocabulary(vocabulary.values(), special_ids)
        check_repeats(self._ids)

    def _ids(self, text: str) -> list[int]:
        return self._tokenizer(
            text, add_special_tokens=False, split_special_tokens=True, verbose=False
        )["input_ids"]

    def encode_batch(self, texts: list[str]) -> list[np.ndarray]:
        """Encode documents, one by one."""
        found = [as_text(self._ids(text), self._leaks) for text in texts]
        framed = [[*self._before, *ids, *self._after] if ids else [] for ids in found]
        return [np.array(ids, np.int32) for ids in framed]

    def encode_prompt(self, text: str) -> list[int]:
        """Encode the start of a document."""
        return [*self._before, *as_text(self._ids(text), self._leaks)]

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


def spelled_controls(
    controls: Mapping[int, str],
    encode: Callable[[str], list[int]],
    in_pieces: Callable[[str], list[int]],
) -> dict[int, list[int]]:
    """Find the control tokens that text spelling them is encoded to, and what to write instead.

    The models of some tokenizers (Unigram) have the control tokens among their pieces.
    """
    leaks = {}
    for token_id, text in controls.items():
        if text and token_id in encode(f"a {text}{text} b"):
            leaks[token_id] = [i for i in in_pieces(text) if i != token_id]
    return leaks


def as_text(ids: list[int], leaks: Mapping[int, list[int]]) -> list[int]:
    """Return ids with the pieces of their text in place of control tokens."""
    if not leaks or leaks.keys().isdisjoint(ids):
        return ids
    return [piece for i in ids for piece in leaks.get(i, (i,))]


def check_vocabulary(ids: Collection[int], special: Collection[int]) -> None:
    """Check that a tokenizer has more than control tokens. Raises DataError.

    transformers makes one without a vocabulary where the file of it is missing.
    """
    if len(set(ids) - set(special)) < 2:
        raise DataError(
            "data.tokenizer: has no vocabulary, only control tokens: the file that holds it "
            "(tokenizer.json, tokenizer.model, vocab.txt, ...) is missing"
        )


def check_repeats(encode: Callable[[str], list[int]]) -> None:
    """Check that a tokenizer encodes a text in one way. Raises DataError."""
    if any(encode(PROBE) != encode(PROBE) for _ in range(2)):
        raise DataError(
            "data.tokenizer: gives other tokens for the same text each time (it samples them), so "
            "no run could be resumed exactly; switch that off in its files"
        )
