"""The rules between keys: each names the keys that it reads and says what is wrong with them.

A rule runs only where all keys that it reads are valid by themselves, so that it can report its
problem beside theirs without repeating it.
"""

from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, NamedTuple

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

if TYPE_CHECKING:
    from chomp.config.schema import Config

RULE_BROKEN = "rule_broken"
"""The type of such problems among pydantic's."""


_BYTE_KEYS = ("data.tokenizer.kind", "data.tokenizer.byte_offset")


class Problem(NamedTuple):
    """A broken rule, reported at the key that is most likely the one to change."""

    path: str
    message: str


Check = Callable[["Config"], Iterator[Problem]]


class Rule(NamedTuple):
    """A check, the keys that it reads, and its text for the reference page."""

    reads: frozenset[str]
    check: Check
    text: str


RULES: list[Rule] = []


def _rule(*reads: str) -> Callable[[Check], Check]:
    def register(check: Check) -> Check:
        RULES.append(Rule(frozenset(reads), check, (check.__doc__ or "").strip()))
        return check

    return register


def check_rules(config: "Config", invalid: Collection[str]) -> None:
    """Apply all rules that read none of the `invalid` keys and sections.

    Raises:
        ValidationError: with one entry for each broken rule.
    """
    problems = [
        problem
        for rule in RULES
        if not any(
            read == bad or read.startswith(f"{bad}.") for read in rule.reads for bad in invalid
        )
        for problem in rule.check(config)
    ]
    if problems:
        raise ValidationError.from_exception_data(
            "Config",
            [
                InitErrorDetails(
                    # The message goes in as a value: braces in it are not placeholders.
                    type=PydanticCustomError(RULE_BROKEN, "{text}", {"text": message}),
                    loc=tuple(path.split(".")),
                    input=None,
                )
                for path, message in problems
            ],
        )


@_rule("train.seq_len", "model.chunk_size")
def _rows_are_whole_chunks(config: "Config") -> Iterator[Problem]:
    """`train.seq_len` is a multiple of `model.chunk_size`, and not smaller."""
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


@_rule("train.seq_len", "train.generate_input_len")
def _prompts_fit(config: "Config") -> Iterator[Problem]:
    """`train.generate_input_len` is at most `train.seq_len`."""
    prompt, time = config.train.generate_input_len, config.train.seq_len
    if prompt is not None and prompt > time:
        yield Problem(
            "train.generate_input_len",
            f"must be at most train.seq_len, which is {time} (got {prompt})",
        )


@_rule("train.steps", "optim.warmup_steps")
def _warmup_ends(config: "Config") -> Iterator[Problem]:
    """`optim.warmup_steps` is less than `train.steps`."""
    warmup, steps = config.optim.warmup_steps, config.train.steps
    if warmup >= steps:
        yield Problem(
            "optim.warmup_steps",
            f"must be less than train.steps, which is {steps} (got {warmup})",
        )


@_rule("data.packing_mode", "data.packing_buffer_docs", "train.batch_size", "train.grad_accum")
def _buffer_fills_a_batch(config: "Config") -> Iterator[Problem]:
    """With `data.packing_mode: bin`, `data.packing_buffer_docs` is at least
    `train.grad_accum * train.batch_size`.
    """
    buffer, rows = (
        config.data.packing_buffer_docs,
        config.train.grad_accum * config.train.batch_size,
    )
    if config.data.packing_mode == "bin" and buffer < rows:
        yield Problem(
            "data.packing_buffer_docs",
            "must be at least train.grad_accum * train.batch_size with packing_mode bin, "
            f"which is {rows} (got {buffer})",
        )


@_rule("data.backend", "data.files")
def _files_are_named(config: "Config") -> Iterator[Problem]:
    """`data.backend: files` needs `data.files`."""
    if config.data.backend == "files" and not config.data.files:
        yield Problem(
            "data.files", "must name at least one file or glob with data.backend: files (got none)"
        )


@_rule("data.backend", "data.local_text")
def _local_text_is_given(config: "Config") -> Iterator[Problem]:
    """`data.backend: local_text` needs `data.local_text`, with something in it."""
    texts = config.data.local_text or ()
    if config.data.backend == "local_text" and not any(text.strip() for text in texts):
        yield Problem(
            "data.local_text",
            "must hold some text with data.backend: local_text "
            f"(got {'only blanks' if texts else 'none'})",
        )


@_rule("data.tokenizer.kind", "data.tokenizer.hf_name_or_path")
def _hf_tokenizer_is_named(config: "Config") -> Iterator[Problem]:
    """`data.tokenizer.kind: hf` needs `data.tokenizer.hf_name_or_path`."""
    tokenizer = config.data.tokenizer
    if tokenizer.kind == "hf" and tokenizer.hf_name_or_path is None:
        yield Problem(
            "data.tokenizer.hf_name_or_path",
            "must name a tokenizer with data.tokenizer.kind: hf (got none)",
        )


@_rule(*_BYTE_KEYS, "model.vocab_size")
def _bytes_fit_the_vocabulary(config: "Config") -> Iterator[Problem]:
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


@_rule(*_BYTE_KEYS, "data.tokenizer.add_bos", "model.bos_token_id")
def _bos_is_no_byte(config: "Config") -> Iterator[Problem]:
    """With the byte tokenizer, `data.tokenizer.add_bos` needs `data.tokenizer.byte_offset` above 0
    and `model.bos_token_id` below it.
    """
    if config.data.tokenizer.add_bos:
        yield from _added_token(config, "add_bos", "bos_token_id", config.model.bos_token_id)


@_rule(*_BYTE_KEYS, "data.tokenizer.add_eos", "model.eos_token_id")
def _eos_is_no_byte(config: "Config") -> Iterator[Problem]:
    """With the byte tokenizer, `data.tokenizer.add_eos` needs `data.tokenizer.byte_offset` above 0
    and `model.eos_token_id` below it.
    """
    if config.data.tokenizer.add_eos:
        yield from _added_token(config, "add_eos", "eos_token_id", config.model.eos_token_id)


def _added_token(config: "Config", flag: str, name: str, token_id: int) -> Iterator[Problem]:
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


@_rule(
    *_BYTE_KEYS,
    "data.tokenizer.vocab_size_multiple",
    "model.vocab_size",
    "model.pad_token_id",
    "model.bos_token_id",
    "model.eos_token_id",
)
def _special_tokens_are_in_the_vocabulary(config: "Config") -> Iterator[Problem]:
    """With the byte tokenizer, pad, BOS and EOS ids are less than the vocabulary's size."""
    if config.data.tokenizer.kind != "byte":
        return  # The tokenizer decides on the size, and usually on the ids.
    multiple = config.data.tokenizer.vocab_size_multiple
    vocab = -(-config.model.vocab_size // multiple) * multiple
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        token_id = getattr(config.model, name)
        if token_id >= vocab:
            yield Problem(
                f"model.{name}",
                f"must be less than the vocabulary's size, which is {vocab} (got {token_id})",
            )


@_rule("model.backend", "model.model_dim", "model.num_heads", "model.norm_num_groups")
def _model_dim_divides(config: "Config") -> Iterator[Problem]:
    """`model.model_dim` is a multiple of `model.num_heads` and of `model.norm_num_groups`."""
    yield from _multiple(config, "model_dim", "num_heads")
    yield from _multiple(config, "model_dim", "norm_num_groups")


@_rule("model.backend", "model.z_dim", "model.num_heads")
def _heads_have_even_width(config: "Config") -> Iterator[Problem]:
    """`model.z_dim` is a multiple of `model.num_heads`, and their quotient is even."""
    z_dim, heads = config.model.z_dim, config.model.num_heads
    yield from _multiple(config, "z_dim", "num_heads")
    if config.model.backend == "megalodon" and z_dim % heads == 0 and z_dim // heads % 2:
        yield Problem(
            "model.z_dim",
            "must give each head an even width, as rotary positions rotate pairs: "
            f"model.z_dim / model.num_heads is {z_dim // heads} (got {z_dim} and {heads})",
        )


@_rule("model.backend", "model.value_dim", "model.num_heads")
def _value_dim_divides(config: "Config") -> Iterator[Problem]:
    """`model.value_dim` is a multiple of `model.num_heads`."""
    yield from _multiple(config, "value_dim", "num_heads")


def _multiple(config: "Config", name: str, divisor_name: str) -> Iterator[Problem]:
    value, divisor = getattr(config.model, name), getattr(config.model, divisor_name)
    if config.model.backend == "megalodon" and value % divisor:
        yield Problem(
            f"model.{name}",
            f"must be a multiple of model.{divisor_name}, which is {divisor} (got {value})",
        )


@_rule("model.backend", "model.output_size", "model.vocab_size", "model.share_emb")
def _output_covers_the_vocabulary(config: "Config") -> Iterator[Problem]:
    """`model.output_size` is -1 or at least `model.vocab_size`; with `model.share_emb` it is -1 or
    equal to it.
    """
    output, vocab, shared = (
        config.model.output_size,
        config.model.vocab_size,
        config.model.share_emb,
    )
    if config.model.backend != "megalodon" or output == -1:
        return
    if output == 0 or output < vocab:
        yield Problem(
            "model.output_size",
            f"must be -1 or at least model.vocab_size, which is {vocab} (got {output}): every "
            "token can be a target",
        )
    elif shared and output != vocab:
        yield Problem(
            "model.output_size",
            f"must be -1 or model.vocab_size, which is {vocab}, with model.share_emb "
            f"(got {output})",
        )
