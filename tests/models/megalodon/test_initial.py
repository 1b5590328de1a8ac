"""Initial values, against the library's own."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from megalodon_jax import MegalodonConfig, MegalodonForCausalLM

from chomp.models.megalodon.initial import library_values

SMALL = MegalodonConfig(
    vocab_size=32,
    model_dim=16,
    num_layers=3,
    num_heads=2,
    z_dim=8,
    value_dim=16,
    ffn_hidden_dim=24,
    cema_ndim=2,
    chunk_size=8,
    norm_num_groups=4,
    swiglu=True,
)


@pytest.mark.parametrize(
    "changes",
    [
        {"init_mode": "gaussian", "rescale_nffn": True},
        {"init_mode": "he", "share_emb": True},
        {"init_mode": "xavier", "scale_emb": True},
        {"init_mode": "bert", "norm_affine": False, "swiglu": False},
    ],
)
def test_they_are_the_library_s(changes):
    config, key = replace(SMALL, **changes), jax.random.PRNGKey(3)
    ours = jax.jit(lambda key: library_values(config, key))(key)
    with jax.ensure_compile_time_eval():  # the library's scale of embeddings is a Python number
        theirs = jax.jit(lambda key: MegalodonForCausalLM(config, key=key))(key)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_program_has_as_many_random_numbers_for_any_depth():
    """A compiler's time goes into these."""

    def draws(layers: int) -> int:
        config = replace(SMALL, num_layers=layers)
        traced = jax.make_jaxpr(lambda key: library_values(config, key))(jax.random.PRNGKey(0))
        return str(traced).count("= random_bits[")

    assert draws(2) == draws(7) > 0
