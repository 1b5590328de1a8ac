"""Hugging Face tokenizers: from the hub, a folder, a `tokenizer.json` or a snapshot."""

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from chomp.config.data import TokenizerConfig
from chomp.data.hub import explain_unreachable, hub_errors
from chomp.data.tokenizer import SpecialIds, Tokenizer, control_ids, digest, write_snapshot
from chomp.errors import DataError

KEY = "data.tokenizer.hf_name_or_path"
TOKENIZER_FILE = "tokenizer.json"
SPECIAL_FILES = ("tokenizer_config.json", "special_tokens_map.json")
WELL_KNOWN = {
    "pad": ("<pad>", "[PAD]", "<|pad|>", "<|padding|>"),
    "bos": ("<s>", "<bos>", "[BOS]", "<|begin_of_text|>", "<|startoftext|>", "<|bos|>"),
    "eos": ("</s>", "<eos>", "[EOS]", "<|endoftext|>", "<|end_of_text|>", "<|eos|>"),
}
"""Names of control tokens, for a `tokenizer.json` that comes without a config."""
HUB_NAME = re.compile(r"\w[\w.-]*(/[\w.-]+)?")


class FastTokenizer:
    """A tokenizer of the `tokenizers` library, on all cores.

    Its own template, truncation and padding are not used, and text that spells a control token
    (`</s>`) is encoded as text.
    """

    def __init__(
        self, backend: tokenizers.Tokenizer, special: SpecialIds, *, add_bos: bool, add_eos: bool
    ):
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = True
        self._backend = backend
        self.pad_id, self.bos_id, self.eos_id = special
        self._before = control_ids("bos", special.bos, add_bos)
        self._after = control_ids("eos", special.eos, add_eos)
        self.vocab_size = max(backend.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        self.fingerprint = digest(backend.to_str(), f"{special} {self._before} {self._after}")

    def encode_batch(self, texts: list[str]) -> list[np.ndarray]:
        """Encode documents."""
        encodings = self._backend.encode_batch_fast(texts, add_special_tokens=False)
        return [self._framed(encoding.ids) for encoding in encodings]

    def _framed(self, ids: list[int]) -> np.ndarray:
        if ids and (self._before or self._after):
            ids = [*self._before, *ids, *self._after]
        return np.array(ids, np.int32)

    def encode_prompt(self, text: str) -> list[int]:
        """Encode the start of a document."""
        return [*self._before, *self._backend.encode(text, add_special_tokens=False).ids]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, without control tokens."""
        return self._backend.decode(list(ids), skip_special_tokens=True)

    def save(self, directory: Path) -> None:
        """Write a snapshot."""
        special = SpecialIds(self.pad_id, self.bos_id, self.eos_id)
        write_snapshot(directory, {"kind": "hf", **special._asdict()})
        # Not with its own `save`, whose error on a full disk is a bare Exception.
        (directory / TOKENIZER_FILE).write_text(self._backend.to_str(pretty=True), encoding="utf-8")


class SlowTokenizer:
    """A tokenizer that exists only in Python, used through transformers."""

    def __init__(self, tokenizer: Any, special: SpecialIds, *, add_bos: bool, add_eos: bool):
        self._tokenizer = tokenizer
        self.pad_id, self.bos_id, self.eos_id = special
        self._before = control_ids("bos", special.bos, add_bos)
        self._after = control_ids("eos", special.eos, add_eos)
        vocabulary: dict[str, int] = tokenizer.get_vocab()
        self.vocab_size = max(vocabulary.values(), default=-1) + 1
        content = json.dumps(sorted(vocabulary.items()))
        name = type(tokenizer).__name__
        self.fingerprint = digest(name, content, f"{special} {self._before} {self._after}")

    def _ids(self, text: str) -> list[int]:
        return self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]

    def encode_batch(self, texts: list[str]) -> list[np.ndarray]:
        """Encode documents, one by one."""
        found = [self._ids(text) for text in texts]
        framed = [[*self._before, *ids, *self._after] if ids else [] for ids in found]
        return [np.array(ids, np.int32) for ids in framed]

    def encode_prompt(self, text: str) -> list[int]:
        """Encode the start of a document."""
        return [*self._before, *self._ids(text)]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, without control tokens."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=True)

    def save(self, directory: Path) -> None:
        """Write a snapshot."""
        special = SpecialIds(self.pad_id, self.bos_id, self.eos_id)
        write_snapshot(directory, {"kind": "hf", **special._asdict()})
        self._tokenizer.save_pretrained(str(directory))


def load_hf_tokenizer(
    config: TokenizerConfig, snapshot: Path | None, special: SpecialIds
) -> Tokenizer:
    """Load a Hugging Face tokenizer.

    Args:
        config: the section `data.tokenizer`.
        snapshot: a folder written by `save`, read instead.
        special: the snapshot's ids, or the model's, used without `auto_set_special_tokens`.
    """
    add = {"add_bos": config.add_bos, "add_eos": config.add_eos}
    own = config.auto_set_special_tokens and snapshot is None
    source = str(snapshot or os.path.expanduser(config.hf_name_or_path or ""))
    if not source:
        raise DataError(f"{KEY}: needed with data.tokenizer.kind: hf")
    folder = _find(source)
    file = folder if folder is not None and folder.is_file() else None
    if folder is not None and file is None and not config.hf_trust_remote_code:
        file = folder / TOKENIZER_FILE
    if file is not None and file.is_file():
        backend = read_tokenizer_file(file)
        found = special_ids(backend, file.parent, bare=folder == file) if own else special
        return FastTokenizer(backend, found, **add)
    tokenizer = _from_transformers(str(folder or source), config.hf_trust_remote_code)
    if own:
        special = SpecialIds(tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if isinstance(backend, tokenizers.Tokenizer):
        return FastTokenizer(backend, special, **add)
    return SlowTokenizer(tokenizer, special, **add)


def _find(source: str) -> Path | None:
    """Return the file or folder of a local or cached tokenizer; None if only the hub can tell."""
    path = Path(source)
    if path.exists():
        return path
    if not HUB_NAME.fullmatch(source) or source.endswith((".json", ".model")):
        raise DataError(f"{KEY}: there is no file or folder {source!r}")
    unreachable = explain_unreachable()
    found = [
        _download(source, name, bool(unreachable)) for name in (TOKENIZER_FILE, *SPECIAL_FILES)
    ]
    if found[0] is not None:
        return found[0].parent
    if unreachable:
        raise DataError(
            f"{KEY}: {source!r} is no local path and not in the local cache, and {unreachable}; "
            "check the network, or give a folder or a tokenizer.json"
        )
    return None


def _download(repository: str, name: str, local_only: bool) -> Path | None:
    from huggingface_hub import errors, hf_hub_download

    try:
        return Path(hf_hub_download(repository, name, local_files_only=local_only))
    except errors.EntryNotFoundError:
        return None
    except (ValueError, *hub_errors()) as error:
        raise DataError(f"{KEY}: {repository!r} can't be loaded: {error}") from error


def read_tokenizer_file(path: Path) -> tokenizers.Tokenizer:
    """Read a `tokenizer.json`. Raises DataError if it isn't one."""
    try:
        return tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises no narrower class
        raise DataError(f"{KEY}: {path} is not a tokenizer.json: {error}") from error


def special_ids(backend: tokenizers.Tokenizer, folder: Path, *, bare: bool) -> SpecialIds:
    """Find a tokenizer's control tokens: in the files beside it, else by well-known names."""
    named: dict[str, str | None] = {}
    for name in SPECIAL_FILES:
        content = {} if bare else _read_json(folder / name)
        for role in SpecialIds._fields:
            token = content.get(f"{role}_token")
            token = token.get("content") if isinstance(token, dict) else token
            if isinstance(token, str):
                named.setdefault(role, token)
    if named:
        return SpecialIds(*(_id(backend, named.get(role)) for role in SpecialIds._fields))
    added = {token.content: i for i, token in backend.get_added_tokens_decoder().items()}
    first = {
        role: next((added[name] for name in names if name in added), None)
        for role, names in WELL_KNOWN.items()
    }
    return SpecialIds(**first)


def _id(backend: tokenizers.Tokenizer, token: str | None) -> int | None:
    return None if token is None else backend.token_to_id(token)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DataError(f"{KEY}: {path} can't be read: {error}") from error
    return content if isinstance(content, dict) else {}


def _from_transformers(source: str, trust_remote_code: bool) -> Any:
    # It would advise to install PyTorch.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code)
    except (ValueError, KeyError, ImportError, *hub_errors()) as error:
        reason = " ".join(str(error).split())  # it comes in several lines
        raise DataError(f"{KEY}: {source!r} can't be loaded: {reason}") from error
