"""Small models whose every parameter has some value that matters."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from megalodon_jax import MegalodonConfig, MegalodonForCausalLM

OPTIONS = ("swiglu", "rescale_nffn", "scale_emb", "share_emb", "norm_affine")
SMALL = {
    "vocab_size": 97,
    "model_dim": 48,
    "num_layers": 2,
    "num_heads": 2,
    "z_dim": 32,
    "value_dim": 64,
    "ffn_hidden_dim": 72,
    "cema_ndim": 8,
    "chunk_size": 16,
    "norm_num_groups": 6,
}


def random_model(dtype: Any = jnp.float32, **changes: Any) -> MegalodonForCausalLM:
    config = MegalodonConfig(**{**SMALL, **changes}, param_dtype=dtype, compute_dtype=dtype)
    model = MegalodonForCausalLM(config, key=jax.random.PRNGKey(1))
    arrays, others = eqx.partition(model, eqx.is_array)
    leaves, tree = jax.tree.flatten(arrays)
    keys = jax.random.split(jax.random.PRNGKey(2), len(leaves))
    noisy = [
        leaf + 0.05 * jax.random.normal(key, leaf.shape).astype(leaf.dtype)
        for leaf, key in zip(leaves, keys, strict=True)
    ]
    return eqx.combine(jax.tree.unflatten(tree, noisy), others)
