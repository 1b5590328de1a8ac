"""A model that says no more than it has to."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from chomp.models import LanguageModel
from chomp.types import Batch, ParameterKind


class Smallest(LanguageModel):
    def init(self, key: Any) -> Any:
        embed = jax.random.normal(key, (16, 4))
        return {"embed": embed, "inner": [{"scale": jnp.ones(4)}], "head": embed.T}

    def loss(self, params: Any, rows: Batch, key: Any) -> Any:
        raise NotImplementedError


@pytest.fixture
def shapes() -> Any:
    return jax.eval_shape(Smallest().init, jax.random.PRNGKey(0))


def test_parameters_are_known_by_name_and_shape(shapes: Any):
    assert Smallest().parameter_kinds(shapes) == {
        "embed": ParameterKind.EMBEDDING,
        "inner": [{"scale": ParameterKind.OTHER}],
        "head": ParameterKind.PROJECTION,
    }


def test_weights_are_cut_along_their_first_dimension():
    assert Smallest().shard_axis("embed", (16, 4)) == 0
    assert Smallest().shard_axis("head", (4, 16)) == 0
    assert Smallest().shard_axis("inner.0.scale", (4,)) is None


def test_each_projection_is_multiplied_once_forward_and_twice_backward():
    assert Smallest().flops_per_token == 3 * 2 * 4 * 16


def test_it_computes_in_the_dtypes_of_its_parameters(shapes: Any):
    assert set(jax.tree.leaves(Smallest().cast_dtypes(shapes))) == {jnp.dtype("float32")}
    assert not Smallest.can_generate
