import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from chomp.config import Config, OptimConfig
from chomp.models import build_model
from chomp.optim import Optimizer, Rates, parameter_groups

Make = Callable[..., Any]


@pytest.fixture(scope="session")
def named() -> Callable[[Any], dict[str, Any]]:
    """Turn a tree into its leaves by path."""

    def flatten(tree: Any) -> dict[str, Any]:
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        return {jax.tree_util.keystr(path).lstrip("."): leaf for path, leaf in leaves}

    return flatten


@pytest.fixture(scope="session")
def params_of(make_config: Callable[..., Config]) -> Make:
    """Make the parameters of a small Megalodon with all its optional parts."""

    def make(**keys: Any) -> Any:
        keys = {"swiglu": True, "rescale_nffn": True} | keys
        config = make_config("megalodon", model=keys)
        model = build_model(config.model, isolate_documents=False)
        shapes = jax.eval_shape(model.init, jax.random.PRNGKey(0))
        # Any numbers will do, and to compile the model's own ones takes seconds.
        rng = np.random.default_rng(7)
        return jax.tree.map(lambda p: jnp.asarray(rng.normal(0, 0.1, p.shape), p.dtype), shapes)

    return make


@pytest.fixture(scope="session")
def params(params_of: Make) -> Any:
    return params_of()


@pytest.fixture(scope="session")
def kinds_of(make_config: Callable[..., Config]) -> Make:
    """Return the kind of each parameter of a Megalodon."""
    return build_model(make_config("megalodon").model, isolate_documents=False).parameter_kinds


@pytest.fixture(scope="session")
def optimizer_for(kinds_of: Make) -> Make:
    """Build the optimizer of a config with a constant learning rate."""

    def build(params: Any, rate: float = 0.1, step_tokens: int = 1, **optim: Any) -> Any:
        config, kinds = OptimConfig(**optim), kinds_of(params)
        groups = parameter_groups(
            params,
            kinds,
            muon=config.name == "muon",
            head=config.muon.include_head,
            all_2d=config.muon.allow_all_2d,
            tied_embed=config.muon.allow_tied_embed,
        )
        constant = {"lr": rate, "warmup_steps": 0, "min_lr_ratio": 1.0}
        rates = Rates.of(config.model_copy(update=constant), 1, step_tokens)
        optimizer = Optimizer(config, groups, kinds, step_tokens)
        return optax.GradientTransformation(
            optimizer.init, functools.partial(optimizer.update, rates=rates)
        )

    return build
