# Copyright 2026 the chomp authors.
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software distributed under the License
# is distributed on an "AS IS" BASIS, WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express
# or implied. See the License for the specific language governing permissions and limitations under
# the License.
"""Configuration of Megalodon for transformers."""

from typing import Any

from transformers import PretrainedConfig


class MegalodonConfig(PretrainedConfig):
    """Sizes and options of a Megalodon language model.

    Args:
        vocab_size: rows of the embedding.
        model_dim: width of the residual stream.
        num_layers: blocks of attention and feed-forward network.
        num_heads: attention heads.
        z_dim: width of queries and keys, over all heads.
        value_dim: width of the values, over all heads.
        ffn_hidden_dim: hidden width of the feed-forward network.
        cema_ndim: components of the complex moving average, per channel.
        chunk_size: tokens that attention looks at together.
        norm_num_groups: groups of channels that TimestepNorm normalises together.
        norm_eps: added to variances.
        rope_base: of the rotary frequencies.
        swiglu: a gated feed-forward network.
        rescale_nffn: a learned scale on the feed-forward network's output.
        scale_emb: embeddings times the square root of `model_dim`.
        norm_affine: learned scales in RMSNorm and LayerNorm.
        output_size: rows of the output matrix; -1: `vocab_size`.
        softmax_dtype: in which attention's softmax is computed.
    """

    model_type = "megalodon"
    attribute_map = {  # noqa: RUF012  (transformers reads it so)
        "hidden_size": "model_dim",
        "num_hidden_layers": "num_layers",
        "num_attention_heads": "num_heads",
        "intermediate_size": "ffn_hidden_dim",
    }

    def __init__(
        self,
        vocab_size: int = 256,
        model_dim: int = 128,
        num_layers: int = 2,
        num_heads: int = 1,
        z_dim: int = 64,
        value_dim: int = 256,
        ffn_hidden_dim: int = 320,
        cema_ndim: int = 16,
        chunk_size: int = 256,
        norm_num_groups: int = 32,
        norm_eps: float = 1e-5,
        rope_base: float = 10000.0,
        swiglu: bool = False,
        rescale_nffn: bool = False,
        scale_emb: bool = False,
        norm_affine: bool = True,
        output_size: int = -1,
        softmax_dtype: str = "float32",
        **others: Any,
    ):
        self.vocab_size = vocab_size
        self.model_dim = model_dim
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.z_dim = z_dim
        self.value_dim = value_dim
        self.ffn_hidden_dim = ffn_hidden_dim
        self.cema_ndim = cema_ndim
        self.chunk_size = chunk_size
        self.norm_num_groups = norm_num_groups
        self.norm_eps = norm_eps
        self.rope_base = rope_base
        self.swiglu = swiglu
        self.rescale_nffn = rescale_nffn
        self.scale_emb = scale_emb
        self.norm_affine = norm_affine
        self.output_size = output_size
        self.softmax_dtype = softmax_dtype
        self.use_cache = others.pop("use_cache", True)
        others.setdefault("tie_word_embeddings", False)
        super().__init__(**others)
