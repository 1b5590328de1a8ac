"""The rules between keys: each names the keys that it reads and says what is wrong with them."""

from collections.abc import Collection, Iterator

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from chomp.config.parallel import REST
from chomp.config.registry import MODELS
from chomp.config.sections import Sections
from chomp.config.validators.base import Problem, rule
from chomp.config.validators.lanes import lanes_divide_the_batch
from chomp.config.validators.model import (
    a_head_to_set_to_zero,
    heads_have_even_width,
    kernels_are_fast_ops,
    model_dim_divides,
    norm_groups_have_several_values,
    output_covers_the_vocabulary,
    value_dim_divides,
)
from chomp.config.validators.paths import places_are_apart
from chomp.config.validators.sources import (
    evaluation_sets_are_something,
    names_differ,
    sources_are_something,
    stages_have_all_weights,
)

RULE_BROKEN = "rule_broken"
"""The type of such problems among pydantic's."""

_BYTE_KEYS = ("data.tokenizer.kind", "data.tokenizer.byte_offset")


@rule("model.backend", "train.seq_len", "model.chunk_size")
def rows_are_whole_chunks(config: Sections) -> Iterator[Problem]:
    """`train.seq_len` is a multiple of `model.chunk_size`, and not smaller (for a model of your own
    there is no such rule).
    """
    if config.model.backend in MODELS:
        return
    time, chunk = config.train.seq_len, config.model.chunk_size
    if chunk > time:
        yield Problem(
            "model.chunk_size", f"must be at most train.seq_len, which is {time} (got {chunk})"
        )
    elif time % chunk:
        below = time - time % chunk
        yield Problem(
            "train.seq_len",
            f"must be a multiple of model.chunk_size, which is {chunk} (got {time}); "
            f"the nearest are {below} and {below + chunk}",
        )


@rule("train.seq_len", "train.generate_input_len")
def prompts_fit(config: Sections) -> Iterator[Problem]:
    """`train.generate_input_len` is at most `train.seq_len`."""
    prompt, time = config.train.generate_input_len, config.train.seq_len
    if prompt is not None and prompt > time:
        yield Problem(
            "train.generate_input_len",
            f"must be at most train.seq_len, which is {time} (got {prompt})",
        )


@rule("train.steps", "train.ema", "train.ema_from")
def averages_begin(config: Sections) -> Iterator[Problem]:
    """`train.ema_from` is less than `train.steps`."""
    begin, steps = config.train.ema_from, config.train.steps
    if config.train.ema is not None and begin >= steps:
        yield Problem(
            "train.ema_from", f"must be less than train.steps, which is {steps} (got {begin})"
        )


@rule("train.steps", "optim.warmup_steps")
def warmup_ends(config: Sections) -> Iterator[Problem]:
    """`optim.warmup_steps` is less than `train.steps`."""
    warmup, steps = config.optim.warmup_steps, config.train.steps
    if warmup >= steps:
        yield Problem(
            "optim.warmup_steps",
            f"must be less than train.steps, which is {steps} (got {warmup})",
        )


@rule("optim.rewarm_steps", "optim.rewarm_from")
def rewarming_has_a_length(config: Sections) -> Iterator[Problem]:
    """`optim.rewarm_from` goes with `optim.rewarm_steps`."""
    if config.optim.rewarm_from is not None and config.optim.rewarm_steps is None:
        yield Problem("optim.rewarm_from", "needs optim.rewarm_steps, the length of the rise")


@rule("parallel.data", "parallel.fsdp")
def axes_are_sizes(config: Sections) -> Iterator[Problem]:
    """`parallel.data` and `parallel.fsdp` are at least 1, or one of them is -1."""
    axes = {"parallel.data": config.parallel.data, "parallel.fsdp": config.parallel.fsdp}
    for key, size in axes.items():
        if size == 0:
            yield Problem(key, "must be a number of devices, or -1 for the rest of them (got 0)")
    if set(axes.values()) == {REST}:
        yield Problem("parallel.fsdp", "must be a number of devices where parallel.data is -1")


def _alone(config: Sections) -> str | None:
    """Return the source's backend if there is one source."""
    return None if config.data.sources else config.data.backend


@rule("data.backend", "data.sources", "data.files")
def files_are_named(config: Sections) -> Iterator[Problem]:
    """`data.backend: files` needs `data.files`."""
    if _alone(config) == "files" and not config.data.files:
        yield Problem(
            "data.files", "must name at least one file or glob with data.backend: files (got none)"
        )


@rule("data.backend", "data.sources", "data.local_text")
def local_text_is_given(config: Sections) -> Iterator[Problem]:
    """`data.backend: local_text` needs `data.local_text`, with something in it."""
    texts = config.data.local_text or ()
    if _alone(config) == "local_text" and not any(text.strip() for text in texts):
        yield Problem(
            "data.local_text",
            "must hold some text with data.backend: local_text "
            f"(got {'only blanks' if texts else 'none'})",
        )


@rule("data.backend", "data.sources", "data.tokens_dir")
def tokens_are_named(config: Sections) -> Iterator[Problem]:
    """`data.backend: tokens` needs `data.tokens_dir`."""
    if _alone(config) == "tokens" and config.data.tokens_dir is None:
        yield Problem(
            "data.tokens_dir",
            "must name a folder made by chomp data prepare with data.backend: tokens (got none)",
        )


@rule("data.backend", "data.sources", "data.hf_split", "data.hf_eval_split")
def splits_are_two(config: Sections) -> Iterator[Problem]:
    """With `data.backend: hf`, `data.hf_eval_split` is another split than `data.hf_split`."""
    data = config.data
    if _alone(config) == "hf" and data.hf_eval_split == data.hf_split:
        yield Problem(
            "data.hf_eval_split",
            f"must be another split than data.hf_split (got {data.hf_split!r}); null holds "
            "documents of it out of training",
        )


@rule("data.tokenizer.kind", "data.tokenizer.hf_name_or_path")
def hf_tokenizer_is_named(config: Sections) -> Iterator[Problem]:
    """`data.tokenizer.kind: hf` needs `data.tokenizer.hf_name_or_path`."""
    tokenizer = config.data.tokenizer
    if tokenizer.kind == "hf" and tokenizer.hf_name_or_path is None:
        yield Problem(
            "data.tokenizer.hf_name_or_path",
            "must name a tokenizer with data.tokenizer.kind: hf (got none)",
        )


@rule(*_BYTE_KEYS, "model.vocab_size")
def bytes_fit_the_vocabulary(config: Sections) -> Iterator[Problem]:
    """With the byte tokenizer, `model.vocab_size` is at least 256 + `data.tokenizer.byte_offset`
    (the ids of all bytes).
    """
    tokenizer, vocab = config.data.tokenizer, config.model.vocab_size
    if tokenizer.kind == "byte" and vocab < tokenizer.byte_offset + 256:
        yield Problem(
            "model.vocab_size",
            "must be at least data.tokenizer.byte_offset + 256 with the byte tokenizer, "
            f"which is {tokenizer.byte_offset + 256} (got {vocab})",
        )


@rule(*_BYTE_KEYS, "data.tokenizer.add_bos", "model.bos_token_id")
def bos_is_no_byte(config: Sections) -> Iterator[Problem]:
    """With the byte tokenizer, `data.tokenizer.add_bos` needs `data.tokenizer.byte_offset` above 0
    and `model.bos_token_id` below it.
    """
    if config.data.tokenizer.add_bos:
        yield from _added_token(config, "add_bos", "bos_token_id", config.model.bos_token_id)


@rule(*_BYTE_KEYS, "data.tokenizer.add_eos", "model.eos_token_id")
def eos_is_no_byte(config: Sections) -> Iterator[Problem]:
    """With the byte tokenizer, `data.tokenizer.add_eos` needs `data.tokenizer.byte_offset` above 0
    and `model.eos_token_id` below it.
    """
    if config.data.tokenizer.add_eos:
        yield from _added_token(config, "add_eos", "eos_token_id", config.model.eos_token_id)


def _added_token(config: Sections, flag: str, name: str, token_id: int) -> Iterator[Problem]:
    offset = config.data.tokenizer.byte_offset
    if config.data.tokenizer.kind != "byte":
        return
    if offset == 0:
        yield Problem(
            f"data.tokenizer.{flag}",
            "needs data.tokenizer.byte_offset above 0: without it all ids are bytes (got true "
            f"with byte_offset 0); for example byte_offset: 3 and model.vocab_size: {3 + 256}",
        )
    elif token_id >= offset:
        yield Problem(
            f"model.{name}",
            f"must be less than data.tokenizer.byte_offset, which is {offset}, with "
            f"data.tokenizer.{flag} (got {token_id}, the id of a byte)",
        )


@rule(
    *_BYTE_KEYS,
    "data.tokenizer.vocab_size_multiple",
    "model.vocab_size",
    "model.pad_token_id",
    "model.bos_token_id",
    "model.eos_token_id",
)
def special_tokens_are_in_the_vocabulary(config: Sections) -> Iterator[Problem]:
    """With the byte tokenizer, pad, BOS and EOS ids are less than the vocabulary's size."""
    if config.data.tokenizer.kind != "byte":
        return  # The tokenizer decides on the size, and usually on the ids.
    vocab = _vocab(config)
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        token_id = getattr(config.model, name)
        if token_id >= vocab:
            yield Problem(
                f"model.{name}",
                f"must be less than the vocabulary's size, which is {vocab} (got {token_id})",
            )


@rule(
    *_BYTE_KEYS,
    "data.tokenizer.vocab_size_multiple",
    "model.vocab_size",
    "train.generate_top_k",
)
def top_k_is_in_the_vocabulary(config: Sections) -> Iterator[Problem]:
    """With the byte tokenizer, `train.generate_top_k` is at most the vocabulary's size."""
    top_k = config.train.generate_top_k
    if config.data.tokenizer.kind == "byte" and top_k is not None and top_k > _vocab(config):
        yield Problem(
            "train.generate_top_k",
            f"must be at most the vocabulary's size, which is {_vocab(config)} (got {top_k})",
        )


def _vocab(config: Sections) -> int:
    multiple = config.data.tokenizer.vocab_size_multiple
    return -(-config.model.vocab_size // multiple) * multiple


RULES = (
    rows_are_whole_chunks,
    prompts_fit,
    averages_begin,
    warmup_ends,
    rewarming_has_a_length,
    axes_are_sizes,
    files_are_named,
    local_text_is_given,
    tokens_are_named,
    splits_are_two,
    sources_are_something,
    names_differ,
    stages_have_all_weights,
    evaluation_sets_are_something,
    lanes_divide_the_batch,
    hf_tokenizer_is_named,
    bytes_fit_the_vocabulary,
    bos_is_no_byte,
    eos_is_no_byte,
    special_tokens_are_in_the_vocabulary,
    top_k_is_in_the_vocabulary,
    norm_groups_have_several_values,
    a_head_to_set_to_zero,
    model_dim_divides,
    heads_have_even_width,
    value_dim_divides,
    kernels_are_fast_ops,
    output_covers_the_vocabulary,
    places_are_apart,
)


def check_rules(config: Sections, invalid: Collection[str]) -> None:
    """Apply all rules that read none of the `invalid` keys and sections.

    Raises:
        ValidationError: with one entry for each broken rule.
    """
    problems = [
        problem for rule in RULES if rule.applies(invalid) for problem in rule.check(config)
    ]
    if problems:
        raise ValidationError.from_exception_data(
            "Config", [_as_pydantic_has_it(problem) for problem in problems]
        )


def _as_pydantic_has_it(problem: Problem) -> InitErrorDetails:
    # The message goes in as a value: braces in it are not placeholders.
    error = PydanticCustomError(RULE_BROKEN, "{text}", {"text": problem.message})
    return InitErrorDetails(type=error, loc=tuple(problem.path.split(".")), input=None)
