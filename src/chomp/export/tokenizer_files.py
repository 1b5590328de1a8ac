"""The tokenizer, in files that `AutoTokenizer` of transformers loads."""

import json
import os
from pathlib import Path
from typing import Any

from chomp.data import Tokenizer
from chomp.data.tokenizers.base import SNAPSHOT_FILE
from chomp.data.tokenizers.byte import ByteTokenizer
from chomp.data.tokenizers.library import CONFIG_FILE, TOKENIZER_FILE

ROLES = {"pad": "<pad>", "bos": "<s>", "eos": "</s>"}
"""Names of the byte tokenizer's control tokens."""
PROBES = (
    "def main(args):\n    return [f'{a!r}' for a in args]\n",
    "Two  spaces, a tab\t, naïve café, 東京, 😀 and a line\r\n",
    " <s>, </s>, <pad> and <|endoftext|> as text ",
)


def write_tokenizer(tokenizer: Tokenizer, folder: Path, *, add_bos: bool) -> None:
    """Write files by which transformers encodes a prompt to the same ids as chomp does.

    Args:
        tokenizer: of the run.
        folder: to write to.
        add_bos: whether a prompt begins with the beginning-of-text token.
    """
    if isinstance(tokenizer, ByteTokenizer):
        content, config = byte_tokenizer(tokenizer)
    else:
        tokenizer.save(folder)
        (folder / SNAPSHOT_FILE).unlink()
        if not (folder / TOKENIZER_FILE).exists():  # one that exists only in Python
            return
        content = json.loads((folder / TOKENIZER_FILE).read_text(encoding="utf-8"))
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    bos = config.get("bos_token")
    content["post_processor"] = None
    if add_bos and bos is not None and tokenizer.bos_id is not None:
        content["post_processor"] = _first(bos, tokenizer.bos_id)
    # In training, text that spells a control token is text.
    config |= {"split_special_tokens": True, "padding_side": "left"}
    _write(folder / TOKENIZER_FILE, content)
    _write(folder / CONFIG_FILE, config)


def byte_tokenizer(tokenizer: ByteTokenizer) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the contents of `tokenizer.json` and `tokenizer_config.json` for bytes."""
    names: dict[int, str] = {}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    for role, name in ROLES.items():
        token_id = getattr(tokenizer, f"{role}_id")
        if token_id is not None:
            config[f"{role}_token"] = names.setdefault(token_id, name)
    vocabulary = {name: token_id for token_id, name in names.items()}
    vocabulary |= {char: byte + tokenizer.offset for byte, char in enumerate(byte_alphabet())}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": token_id, "content": name, **flags, "special": True}
            for token_id, name in sorted(names.items())
        ],
        "normalizer": None,
        "pre_tokenizer": level | {"use_regex": False},
        "post_processor": None,
        "decoder": level | {"use_regex": False},
        "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
    }, config


def byte_alphabet() -> list[str]:
    """Return the character that stands for each byte in byte-level tokenizers.

    Printable ones of Latin-1 stand for themselves; the others are those from U+0100 on, in order.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def difference(tokenizer: Tokenizer, folder: Path, *, trust_remote_code: bool) -> str | None:
    """Return what transformers does to a prompt that chomp doesn't; None: nothing.

    Args:
        tokenizer: of the run.
        folder: with the files.
        trust_remote_code: run the Python code that comes with them.
    """
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=trust_remote_code)
    for text in PROBES:
        wanted = tokenizer.encode_prompt(text)
        if list(loaded(text)["input_ids"]) == wanted:
            continue
        if list(loaded(text, add_special_tokens=False)["input_ids"]) == wanted:
            return "adds control tokens of its own; call it with add_special_tokens=False"
        return f"encodes {text!r} to other tokens than chomp, whose ids it was trained on"
    return None


def _first(token: str, token_id: int) -> dict[str, Any]:
    before = {"SpecialToken": {"id": token, "type_id": 0}}
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    return {
        "type": "TemplateProcessing",
        "single": [before, first],
        "pair": [before, first, second],
        "special_tokens": {token: {"id": token, "ids": [token_id], "tokens": [token]}},
    }


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
