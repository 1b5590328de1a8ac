"""Parameters in files of safetensors, by the library's names or the released PyTorch ones."""

import re
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
from jaxtyping import Array
from megalodon_jax import MegalodonForCausalLM
from megalodon_jax.checkpoint import apply_model_state_dict, model_state_dict
from safetensors import SafetensorError, safe_open

FILE = "model.safetensors"
RELEASED = (
    (r"model\.embed\.", "embed."),
    (r"model\.norm\.", "output.final_norm."),
    (r"lm_head\.", "output.output."),
    (r"model\.(layers\.\d+)\.ffn\.", r"\1.nffn."),
    (r"model\.(layers\.\d+)\.attn\.rmsnorm\.gamma", r"\1.mega.rmsnorm.weight"),
    (r"model\.(layers\.\d+)\.attn\.", r"\1.mega."),
)
"""Patterns of the library's names, and the released ones."""
PARTS = ("gamma_real", "gamma_imag")
"""Names of a complex parameter's parts, which the released code keeps as one array."""


def released_name(name: str) -> str:
    """Return the released name of a parameter that has `name` in the library."""
    for pattern, released in RELEASED:
        name = re.sub(rf"^{pattern}", released, name)
    return name


def read_weights(path: Path, model: MegalodonForCausalLM) -> MegalodonForCausalLM:
    """Return `model` with the parameters of a file, in the model's own number formats and places.

    Args:
        path: a file of safetensors, or a folder with a `model.safetensors`.
        model: gives names, shapes, number formats and places.

    Raises:
        ValueError: the file is none of safetensors, or its parameters aren't those of the model.
        OSError: it can't be read.
    """
    file = path / FILE if path.is_dir() else path
    try:
        with safe_open(file, framework="flax") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{file} is no file of safetensors ({error})") from error
    found = {}
    for name, like in model_state_dict(model).items():
        value = _find(name, tensors)
        if value is None:
            raise ValueError(f"{file} has no parameter {name} (or {released_name(name)})")
        if value.shape != like.shape:
            raise ValueError(
                f"{name} has the shape {tuple(value.shape)} in {file} and {tuple(like.shape)} here"
            )
        found[name] = jax.device_put(value.astype(like.dtype), like.sharding)
    return apply_model_state_dict(model, found)[0]


def _find(name: str, tensors: Mapping[str, Array]) -> Array | None:
    if name in tensors:
        return jnp.asarray(tensors[name])
    released = released_name(name)
    prefix, _, last = released.rpartition(".")
    if last in PARTS and f"{prefix}.gamma" in tensors:
        return jnp.asarray(tensors[f"{prefix}.gamma"])[..., PARTS.index(last)]
    if released not in tensors:
        return None
    value = jnp.asarray(tensors[released])
    return value[:, 0] if last == "omega" and value.ndim == 2 else value
