"""The `model` section: which network is trained, its sizes and its number formats."""

from typing import Annotated, Literal

from annotated_types import Ge, Le
from pydantic import Field

from chomp.config.base import (
    INT32_MAX,
    Count,
    Dtype,
    Positive,
    Rate,
    Section,
    TokenId,
)
from chomp.config.options import Options
from chomp.config.registry import ModelName


class ModelConfig(Section):
    """Which network is trained: its sizes, initialisation and number formats.

    Names and meanings are those of `megalodon_jax.MegalodonConfig`.
    """

    backend: ModelName = "megalodon"
    """`megalodon`: the real model. `dummy`: an embedding and a projection, to try everything that
    is not the model; it uses only `vocab_size`, `d_model` and the token ids. Or the name of a model
    that your own module registers (`--plugin`)."""
    options: Options = Field(default={}, validate_default=True)
    """Values for a model of your own, which reads them as it likes."""
    vocab_size: Count = 256
    """Tokens in the vocabulary. Raised, where needed, to the tokenizer's size and to a multiple of
    `data.tokenizer.vocab_size_multiple`; `config_resolved.json` holds the final number."""
    model_dim: Count = 128
    """Width of the residual stream. Divisible by `num_heads` and by `norm_num_groups`."""
    num_layers: Count = 2
    """Megalodon blocks: each has gated attention over the moving average, then a feed-forward
    network."""
    num_heads: Count = 1
    """Attention heads. The released models use 1 up to 200M parameters."""
    z_dim: Count = 64
    """Width of queries and keys, over all heads. `z_dim / num_heads` must be even (rotary
    positions rotate pairs)."""
    value_dim: Count = 128
    """Width of the values, over all heads; usually twice `model_dim`."""
    ffn_hidden_dim: Count = 256
    """Hidden width of the feed-forward network; usually 2.5 times `model_dim`."""
    cema_ndim: Count = 16
    """Components of the complex exponential moving average, per channel."""
    chunk_size: Count = 128
    """Attention looks at this many tokens at a time; the moving average carries what is older.
    `train.seq_len` must be a multiple of it."""
    norm_num_groups: Count = 32
    """Groups of channels that TimestepNorm normalises together."""
    norm_eps: Positive = 1e-5
    """Added to variances before the division, in all norms."""
    rope_base: Positive | None = None
    """Base of the rotary positions' frequencies. `null`: 10,000."""
    swiglu: bool = False
    """A gated feed-forward network: a third matrix, half as many parameters again."""
    rescale_nffn: bool = False
    """Scale each feed-forward output by a learned vector."""
    scale_emb: bool = False
    """Multiply embeddings by the square root of `model_dim`."""
    share_emb: bool = False
    """Use the embedding as output head too: saves `vocab_size * model_dim` parameters."""
    norm_affine: bool = True
    """Learned scale in RMSNorm and in the feed-forward LayerNorm (TimestepNorm always has one)."""
    dropout: Rate = 0.0
    """Dropout on the outputs of attention and of the feed-forward network."""
    attention_dropout: Rate = 0.0
    """Dropout on attention weights."""
    hidden_dropout: Rate = 0.0
    """Dropout inside the blocks: on gated activations and on feed-forward hidden units."""
    pad_token_id: TokenId = 0
    """Token in padded positions. These are known by `attention_mask`, not by this id. Replaced by
    the tokenizer's with `data.tokenizer.auto_set_special_tokens`, as are the next two."""
    bos_token_id: TokenId = 1
    """Token put before each document with `data.tokenizer.add_bos`."""
    eos_token_id: TokenId = 2
    """Token put after each document with `data.tokenizer.add_eos`; generation stops at it."""
    init_mode: Literal["gaussian", "xavier", "he", "bert"] = "he"
    """How projection matrices are initialised."""
    init_zero_head: bool = False
    """Begin with an output head of zeros, so that the first loss is that of a uniform guess."""
    init_zero_outputs: bool = False
    """Begin with zeros in the last matrices of each block (`wh1`, `wh2`, `fc2`), so that it changes
    nothing at first."""
    init_memory: Annotated[float, Ge(4)] | None = None
    """Tokens that the slowest component of the moving average remembers at first; the others are
    spread between four and this, by equal factors. `null`: all remember about four."""
    use_checkpoint: bool = False
    """Activation checkpointing: recompute each block in the backward pass instead of keeping its
    activations. megalodon-jax does it only in runs that are not deterministic: with
    `train.deterministic: false`, where dropout rates may stay 0.0."""
    fast_ops: bool = True
    """Compute ComplexEMA, TimestepNorm and the loss with chomp's own operations: the same results
    in a fraction of the time. `false`: as megalodon-jax does, for comparison."""
    kernels: Literal["auto", "xla", "pallas"] = "auto"
    """Who writes the GPU programs of chomp's own operations. `xla`: the compiler. `pallas`: chomp's
    kernels where it has them (ComplexEMA, attention), on NVIDIA GPUs only. `auto`: `pallas` on
    those of compute capability 8.0 (A100) and above, `xla` elsewhere."""
    output_size: Annotated[int, Ge(-1), Le(INT32_MAX)] = -1
    """Width of the output head. -1: the vocabulary."""
    param_dtype: Dtype = "float32"
    """Number format in which matrices are kept and updated."""
    compute_dtype: Dtype = "bfloat16"
    """Number format of activations and matrix products. `float32` is faster on most CPUs."""
    accum_dtype: Literal["float32"] = "float32"
    """Number format in which matrix products are summed."""
    softmax_dtype: Dtype = "float32"
    """Number format of the attention softmax (the loss's is always float32)."""
    d_model: Count = Field(default=128)
    """Width of the `dummy` backend; `megalodon` ignores it."""
