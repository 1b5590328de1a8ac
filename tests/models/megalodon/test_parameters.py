from collections.abc import Callable
from typing import Any

import pytest

from chomp.models import LanguageModel, build_model


@pytest.fixture(scope="module")
def model(make_config: Callable[..., Any]) -> LanguageModel:
    return build_model(make_config("megalodon").model, isolate_documents=False)


@pytest.mark.parametrize(
    ("path", "axis"),
    [
        ("model.layers.0.attn.wz.weight", 0),
        ("model.embed.weight", 0),
        ("model.layers.0.attn.cema.alpha", 0),
        ("model.layers.0.attn.gamma", None),
        # Arrays of the optimizer end in the path of their parameter.
        ("1.inner_states.adamw.inner_state.0.mu.lm_head.weight", 0),
        ("step", None),
        ("", None),
    ],
)
def test_the_dimension_that_fsdp_cuts(model: LanguageModel, path: str, axis: int | None):
    assert model.shard_axis(path, (128, 256)) == axis
