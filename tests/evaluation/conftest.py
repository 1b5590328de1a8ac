"""The model whose scores are looked at, and what one pass over all tokens says of them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chomp.models import build_model

SIZES = (16, 1024)


@pytest.fixture(scope="session")
def params(make_config: Any) -> Any:
    model = build_model(make_config("megalodon").model, isolate_documents=False)
    return jax.jit(model.init)(jax.random.PRNGKey(3))


@pytest.fixture(scope="session")
def log_p(params: Any) -> Callable[[Any], np.ndarray]:
    """Compute the log-probabilities of all tokens behind each of a text's: [time, vocab]."""

    @jax.jit
    def one_pass(params: Any, tokens: jax.Array) -> jax.Array:
        logits, _ = params(tokens)
        return jax.nn.log_softmax(logits.astype(jnp.float32))

    def compute(tokens: Any) -> np.ndarray:
        # No token sees what is behind it: padding there makes few shapes of all lengths.
        size = next(size for size in SIZES if len(tokens) <= size)
        padded = np.zeros((1, size), np.int32)
        padded[0, : len(tokens)] = tokens
        return np.asarray(one_pass(params, padded))[0, : len(tokens)]

    return compute
