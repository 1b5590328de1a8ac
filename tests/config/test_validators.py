from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from megalodon_jax import MegalodonConfig

from chomp.config import Config, ModelConfig, config_from_mapping
from chomp.config.keys import known_paths
from chomp.config.validators.general import RULES
from chomp.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "train: {seq_len: 200}",
            "train.seq_len: must be a multiple of model.chunk_size, which is 128 (got 200); the "
            "nearest are 128 and 256",
        ),
        (
            "train: {seq_len: 64}",
            "model.chunk_size: must be at most train.seq_len, which is 64 (got 128)",
        ),
        (
            "train: {generate_input_len: 129}",
            "train.generate_input_len: must be at most train.seq_len, which is 128 (got 129)",
        ),
        (
            "optim: {warmup_steps: 100}",
            "optim.warmup_steps: must be less than train.steps, which is 100 (got 100)",
        ),
        (
            "model: {init_zero_head: true, share_emb: true}",
            "model.init_zero_head: there is no head of its own with model.share_emb",
        ),
        (
            "optim: {rewarm_from: 9}",
            "optim.rewarm_from: needs optim.rewarm_steps, the length of the rise",
        ),
        (
            "data: {lanes: 4}\ntrain: {batch_size: 6}",
            "data.lanes: must divide train.batch_size, which is 6 (got 4); the nearest are 3 and 6",
        ),
        (
            "data: {lanes: 9}\ntrain: {batch_size: 6}",
            "data.lanes: must divide train.batch_size, which is 6 (got 9); the nearest is 6",
        ),
        (
            "data: {backend: files}",
            "data.files: must name at least one file or glob with data.backend: files (got none)",
        ),
        (
            "data: {backend: local_text}",
            "data.local_text: must hold some text with data.backend: local_text (got none)",
        ),
        (
            "data: {backend: local_text, local_text: [' ', '']}",
            "data.local_text: must hold some text with data.backend: local_text (got only blanks)",
        ),
        (
            "data: {backend: tokens}",
            "data.tokens_dir: must name a folder made by chomp data prepare with data.backend: "
            "tokens (got none)",
        ),
        (
            "data: {tokenizer: {kind: hf}}",
            "data.tokenizer.hf_name_or_path: must name a tokenizer with data.tokenizer.kind: hf "
            "(got none)",
        ),
        (
            "data: {tokenizer: {byte_offset: 1}}",
            "model.vocab_size: must be at least data.tokenizer.byte_offset + 256 with the byte "
            "tokenizer, which is 257 (got 256)",
        ),
        (
            "data: {tokenizer: {add_bos: true}}",
            "data.tokenizer.add_bos: needs data.tokenizer.byte_offset above 0: without it all ids "
            "are bytes (got true with byte_offset 0); for example byte_offset: 3 and "
            "model.vocab_size: 259",
        ),
        (
            "data: {tokenizer: {add_eos: true}}",
            "data.tokenizer.add_eos: needs data.tokenizer.byte_offset above 0: without it all ids "
            "are bytes (got true with byte_offset 0); for example byte_offset: 3 and "
            "model.vocab_size: 259",
        ),
        (
            "data: {tokenizer: {add_eos: true, byte_offset: 2}}\nmodel: {vocab_size: 258}",
            "model.eos_token_id: must be less than data.tokenizer.byte_offset, which is 2, with "
            "data.tokenizer.add_eos (got 2, the id of a byte)",
        ),
        (
            "data: {tokenizer: {add_bos: true, byte_offset: 1}}\nmodel: {vocab_size: 258}",
            "model.bos_token_id: must be less than data.tokenizer.byte_offset, which is 1, with "
            "data.tokenizer.add_bos (got 1, the id of a byte)",
        ),
        (
            "model: {pad_token_id: 256}",
            "model.pad_token_id: must be less than the vocabulary's size, which is 256 (got 256)",
        ),
        (
            "train: {generate_top_k: 257}",
            "train.generate_top_k: must be at most the vocabulary's size, which is 256 (got 257)",
        ),
        (
            "model: {num_heads: 3, z_dim: 66, value_dim: 129}",
            "model.model_dim: must be a multiple of model.num_heads, which is 3 (got 128)",
        ),
        (
            "model: {norm_num_groups: 48}",
            "model.model_dim: must be a multiple of model.norm_num_groups, which is 48 (got 128)",
        ),
        (
            "model: {norm_num_groups: 128}",
            "model.norm_num_groups: must be less than model.model_dim, which is 128 (got 128): "
            "a group of one value has no variance",
        ),
        (
            "model: {num_heads: 4, z_dim: 66}",
            "model.z_dim: must be a multiple of model.num_heads, which is 4 (got 66)",
        ),
        (
            "model: {num_heads: 2, z_dim: 66}",
            "model.z_dim: must give each head an even width, as rotary positions rotate pairs: "
            "model.z_dim / model.num_heads is 33 (got 66 and 2)",
        ),
        (
            "model: {num_heads: 2, value_dim: 129}",
            "model.value_dim: must be a multiple of model.num_heads, which is 2 (got 129)",
        ),
        (
            "model: {kernels: pallas, fast_ops: false}",
            "model.kernels: must be auto or xla with model.fast_ops: false, which uses none of "
            "chomp's own operations (got pallas)",
        ),
        (
            "model: {output_size: 0}",
            "model.output_size: must be -1 or at least model.vocab_size, which is 256 (got 0): "
            "every token can be a target",
        ),
        (
            "model: {output_size: 300, share_emb: true}",
            "model.output_size: must be -1 or model.vocab_size, which is 256, with "
            "model.share_emb (got 300)",
        ),
    ],
)
def test_broken_rules(problems: Callable[..., list[str]], text: str, problem: str) -> None:
    assert problems(text) == [problem]


@pytest.mark.parametrize(
    "text",
    [
        "train: {seq_len: 384}",
        "train: {generate_input_len: 128}",
        "optim: {warmup_steps: 99}",
        "data: {packing_buffer_docs: 1}",  # Less than a batch has rows: it takes several rounds.
        "data: {tokenizer: {kind: hf, hf_name_or_path: x, add_eos: true}}",
        # The tokenizer may enlarge the vocabulary.
        "data: {tokenizer: {kind: hf, hf_name_or_path: x}}\nmodel: {pad_token_id: 5000}",
        "model: {vocab_size: 259}\ndata: {tokenizer: {byte_offset: 3, add_bos: true}}",
        "model: {vocab_size: 257, pad_token_id: 383}",  # Rounded up to 384.
        "model: {backend: dummy, num_heads: 3, z_dim: 7, norm_num_groups: 48}",
    ],
)
def test_kept_rules(load: Callable[..., Config], text: str) -> None:
    load(text)


def test_direct_construction_is_checked_too() -> None:
    with pytest.raises(ValueError, match=r"model\.z_dim|even width"):
        Config(model=ModelConfig(z_dim=63))


def test_rules_read_keys_that_exist_and_have_a_text() -> None:
    for rule in RULES:
        assert rule.reads <= set(known_paths())
        assert rule.text.endswith(".")


small = st.integers(1, 12)
model_sections = st.fixed_dictionaries(
    {},
    optional={
        "vocab_size": st.sampled_from([256, 300]),
        "model_dim": small,
        "num_layers": small,
        "num_heads": small,
        "z_dim": small,
        "value_dim": small,
        "ffn_hidden_dim": small,
        "norm_num_groups": small,
        "norm_eps": st.floats(width=32),
        "rope_base": st.none() | st.floats(width=32),
        "dropout": st.floats(-0.5, 1.5),
        "share_emb": st.booleans(),
        "output_size": st.sampled_from([-2, -1, 0, 256, 300]),
        "pad_token_id": st.integers(-1, 400),
        "eos_token_id": st.integers(-1, 400),
    },
)


@given(model_sections)
def test_what_is_accepted_is_accepted_by_the_library(section: dict[str, object]) -> None:
    try:
        model = config_from_mapping(
            {"model": section, "data": {"tokenizer": {"vocab_size_multiple": 1}}}
        ).model
    except ConfigError:
        return
    ours_only = {"backend", "options", "d_model", "softmax_dtype", "fast_ops", "kernels"}
    ours_only |= {name for name in type(model).model_fields if name.startswith("init_")}
    ours_only.remove("init_mode")
    dtypes = {"param_dtype", "compute_dtype", "accum_dtype"}
    MegalodonConfig(**model.model_dump(exclude=ours_only | dtypes))
