"""Loading the tokenizer that a config asks for."""

from pathlib import Path

from chomp.config.data import TokenizerConfig
from chomp.data.tokenizers.base import SpecialIds, Tokenizer, read_special_ids
from chomp.data.tokenizers.byte import ByteTokenizer

MODEL_DEFAULTS = SpecialIds(pad=0, bos=1, eos=2)


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
