import math
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.extend.core import jaxprs_in_params

from chomp.config import ModelConfig
from chomp.models import build_model
from chomp.types import Batch

ROWS, TIME = 2, 64
# No two sizes are equal, so that no two products can be mistaken for each other.
SIZES: dict[str, Any] = {
    "vocab_size": 384,
    "model_dim": 48,
    "num_layers": 2,
    "num_heads": 2,
    "z_dim": 32,
    "value_dim": 80,
    "ffn_hidden_dim": 112,
    "cema_ndim": 4,
    "chunk_size": 16,
    "norm_num_groups": 4,
    "compute_dtype": "float32",
}


def product_flops(jaxpr: Any) -> int:
    """Count the operations of all products in a program, those in loops as often as they run."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (summed, _), _ = equation.params["dimension_numbers"]
            terms = math.prod(equation.invars[0].aval.shape[axis] for axis in summed)
            total += 2 * terms * math.prod(equation.outvars[0].aval.shape)
        assert equation.primitive.name not in ("while", "cond"), "runs an unknown number of times"
        times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        for inner in jaxprs_in_params(equation.params):
            total += times * product_flops(inner)
    return total


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"swiglu": True, "share_emb": True, "norm_affine": False},
        {"chunk_size": 64, "num_layers": 1},
        {"backend": "dummy", "d_model": 24},
    ],
    ids=str,
)
def test_it_is_what_the_library_multiplies(changes: dict[str, Any]):
    config = ModelConfig(**SIZES | {"fast_ops": False} | changes)
    model = build_model(config, isolate_documents=False)
    params = jax.eval_shape(model.init, jax.random.PRNGKey(0))
    ids = jax.ShapeDtypeStruct((ROWS, TIME), jnp.int32)
    rows = Batch(ids, ids, ids, jax.ShapeDtypeStruct((ROWS, TIME), jnp.bool))
    program = jax.make_jaxpr(jax.grad(lambda p, r: model.loss(p, r, None)[0]))(params, rows)
    counted = product_flops(program.jaxpr)
    # The dummy leaves out the last position of a row, which predicts nothing.
    positions = ROWS * (TIME - 1 if config.backend == "dummy" else TIME)
    assert counted == positions * model.flops_per_token
