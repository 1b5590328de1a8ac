import itertools
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from random_model import OPTIONS, random_model

from chomp.export.weights import in_dtypes, logits_of, released_tensors


@pytest.mark.torch
@pytest.mark.parametrize("values", [*itertools.product((False, True), repeat=len(OPTIONS))])
def test_released_names_and_values_are_those_of_the_library_s_converter(values: Any):
    pytest.importorskip("torch", reason="needs the extra `export`")
    from megalodon_jax.convert import export_upstream_state_dict

    model = random_model(**dict(zip(OPTIONS, values, strict=True)))
    found, expected = released_tensors(model), export_upstream_state_dict(model)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.numpy().dtype, name
        np.testing.assert_array_equal(found[name], value.numpy(), err_msg=name)


def test_matrices_change_their_dtype_and_what_is_sensitive_keeps_it():
    model = in_dtypes(random_model(), "bfloat16", "float32")
    tensors = released_tensors(model)
    halves = {name.rsplit(".", 2)[-2] for name, each in tensors.items() if each.itemsize == 2}
    assert halves == {"embed", "output", "wz", "wv", "wr", "wh1", "wh2", "fc1", "fc2"}
    assert model.config.param_dtype == jnp.bfloat16 and model.config.compute_dtype == jnp.float32
    back = in_dtypes(model, "float32", "float32")
    np.testing.assert_array_equal(released_tensors(back)["embed.weight"], tensors["embed.weight"])


def test_the_same_dtype_changes_nothing():
    model = random_model(scale_emb=True)
    ids = np.arange(40)[None] % 97
    again = in_dtypes(model, "float32", "float32")
    np.testing.assert_array_equal(logits_of(again, ids), logits_of(model, ids))
