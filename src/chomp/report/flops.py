"""Model FLOPs of a run's steps."""

from collections.abc import Mapping
from typing import Any

from chomp.errors import ChompError


def flops_per_step(config: Mapping[str, Any]) -> float | None:
    """Return the model FLOPs of a step; None where they can't be known.

    Args:
        config: the values of `config_resolved.json`. Those of an earlier version don't have the
            FLOPs of a token; then they are counted, for which JAX is imported.
    """
    try:
        derived = config["derived"]
        tokens = derived["train"]["tokens_per_step"]
        per_token = derived["model"].get("flops_per_token") or _counted(config)
        return float(tokens * per_token)
    except (KeyError, TypeError, ValueError, AttributeError, ChompError):
        return None


def _counted(config: Mapping[str, Any]) -> int:
    """Build the model of a configuration, without parameters, and return its FLOPs per token."""
    from chomp.config import config_from_mapping
    from chomp.models import build_model

    values = {name: value for name, value in config.items() if name != "derived"}
    fitted = {k: v for k, v in config["derived"]["model"].items() if k in config["model"]}
    model = config_from_mapping(values | {"model": config["model"] | fitted}).model
    if model.backend not in ("megalodon", "dummy"):  # a plugin's, which only the user may load
        raise ValueError(model.backend)
    return build_model(model, isolate_documents=False, platform="cpu").flops_per_token
