"""Hugging Face tokenizers: from the hub, a folder, a `tokenizer.json` or a snapshot."""

import importlib.util
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers

from chomp.config.data import TokenizerConfig
from chomp.data.sources.hub import explain_unreachable, hub_errors
from chomp.data.tokenizers.base import SpecialIds, Tokenizer
from chomp.data.tokenizers.library import (
    CONFIG_FILE,
    TOKENIZER_FILE,
    FastTokenizer,
    SlowTokenizer,
)
from chomp.data.tokenizers.panics import is_panic
from chomp.errors import DataError
from chomp.system.extras import require_package
from chomp.system.json_text import parse_json

KEY = "data.tokenizer.hf_name_or_path"
SPECIAL_FILES = (CONFIG_FILE, "special_tokens_map.json")
SAMPLING = ("dropout", "alpha", "nbest_size")
"""Settings of a model that make it encode a text in other ways each time."""
WELL_KNOWN = {
    "pad": ("<pad>", "[PAD]", "<|pad|>", "<|padding|>"),
    "bos": ("<s>", "<bos>", "[BOS]", "<|begin_of_text|>", "<|startoftext|>", "<|bos|>"),
    "eos": ("</s>", "<eos>", "[EOS]", "<|endoftext|>", "<|end_of_text|>", "<|eos|>"),
}
"""Names of control tokens, for a `tokenizer.json` that comes without a config."""
SENTENCEPIECE = "is a SentencePiece model: install the package sentencepiece, which reads it"
HUB_NAME = re.compile(r"\w[\w.-]*(/[\w.-]+)?")


def load_hf_tokenizer(
    config: TokenizerConfig, snapshot: Path | None, special: SpecialIds
) -> Tokenizer:
    """Load a Hugging Face tokenizer.

    Args:
        config: the section `data.tokenizer`.
        snapshot: a folder written by `save`, read instead.
        special: the snapshot's ids, or the model's, used without `auto_set_special_tokens`.
    """
    bos, eos = config.add_bos, config.add_eos
    own = config.auto_set_special_tokens and snapshot is None
    source = str(snapshot or os.path.expanduser(config.hf_name_or_path or ""))
    if not source:
        raise DataError(f"{KEY}: needed with data.tokenizer.kind: hf")
    folder = _find(source)
    file = folder if folder is not None and folder.is_file() else None
    if folder is not None and file is None and not config.hf_trust_remote_code:
        file = folder / TOKENIZER_FILE
    if file is not None and file.suffix == ".model":
        raise DataError(f"{KEY}: {file} is a SentencePiece model; give the folder that it is in")
    if file is not None and file.is_file():
        backend, notes = read_tokenizer_file(file)
        if folder != file:
            _add_tokens(backend, file.parent)
        found = special_ids(backend, file.parent, bare=folder == file) if own else special
        return FastTokenizer(backend, found, add_bos=bos, add_eos=eos, notes=notes)
    tokenizer = _from_transformers(str(folder or source), config.hf_trust_remote_code)
    if own:
        special = SpecialIds(tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if isinstance(backend, tokenizers.Tokenizer):
        backend, notes = _without_sampling(backend.to_str(), source)
        return FastTokenizer(backend, special, add_bos=bos, add_eos=eos, notes=notes)
    return SlowTokenizer(tokenizer, special, add_bos=bos, add_eos=eos)


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


def read_tokenizer_file(path: Path) -> tuple[tokenizers.Tokenizer, list[str]]:
    """Read a `tokenizer.json`; returns notes too. Raises DataError if it isn't one."""
    try:
        text = path.read_text(encoding="utf-8")
        return _without_sampling(text, str(path))
    except (Exception, BaseException) as error:  # the library raises no narrower class, and panics
        if not isinstance(error, Exception) and not is_panic(error):
            raise
        raise DataError(f"{KEY}: {path} is not a tokenizer.json: {error}") from error


def _without_sampling(text: str, source: str) -> tuple[tokenizers.Tokenizer, list[str]]:
    """Make a tokenizer of its JSON, one that encodes a text in one way only."""
    content = json.loads(text)
    model = content.get("model") if isinstance(content, dict) else None
    found = [name for name in SAMPLING if isinstance(model, dict) and model.get(name)]
    if not found or not isinstance(model, dict):
        return tokenizers.Tokenizer.from_str(text), []
    settings = ", ".join(f"{name} {model[name]}" for name in found)
    content["model"] = model | dict.fromkeys(found)
    note = (
        f"{KEY}: {source} encodes the same text in other ways each time ({settings}); that is "
        "switched off, as no run could be resumed exactly"
    )
    return tokenizers.Tokenizer.from_str(json.dumps(content)), [note]


def _add_tokens(backend: tokenizers.Tokenizer, folder: Path) -> None:
    """Add the tokens that only the config beside a tokenizer has. Raises DataError."""
    declared = _read_json(folder / CONFIG_FILE).get("added_tokens_decoder")
    if not isinstance(declared, Mapping):
        return
    for key in sorted((key for key in declared if key.isdecimal()), key=int):
        token = declared[key]
        content = token.get("content") if isinstance(token, Mapping) else None
        if not isinstance(content, str) or backend.token_to_id(content) is not None:
            continue
        flags = {
            name: token[name] is True
            for name in ("lstrip", "rstrip", "single_word", "normalized")
            if name in token
        }
        special = token.get("special") is True
        add = backend.add_special_tokens if special else backend.add_tokens
        add([tokenizers.AddedToken(content, special=special, **flags)])
        if (got := backend.token_to_id(content)) != int(key):
            raise DataError(
                f"{KEY}: {folder / CONFIG_FILE} gives {content!r} the id {key}, but the next free "
                f"one of {TOKENIZER_FILE} is {got}; the two files don't fit"
            )


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
        content = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DataError(f"{KEY}: {path} can't be read: {error}") from error
    return content if isinstance(content, dict) else {}


def _from_transformers(source: str, trust_remote_code: bool) -> Any:
    require_package("transformers", f"{KEY}: {source!r}, which has no {TOKENIZER_FILE},")
    # It would advise to install PyTorch.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    from transformers import AutoTokenizer

    lacks_library = importlib.util.find_spec("sentencepiece") is None
    if lacks_library and (models := sorted(Path(source).glob("*.model"))):
        raise DataError(f"{KEY}: {models[0]} {SENTENCEPIECE}")
    try:
        return AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code)
    except BaseException as error:  # whatever the code of a tokenizer's class raises
        if not isinstance(error, Exception) and not is_panic(error):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__  # it comes in several lines
        if lacks_library and ("sentencepiece" in reason or "tiktoken" in reason):
            none = f"it holds no {TOKENIZER_FILE}; give the folder of a tokenizer"
            reason = none if Path(source).is_dir() else f"what it holds {SENTENCEPIECE}"
        raise DataError(f"{KEY}: {source!r} can't be loaded: {reason}") from error
