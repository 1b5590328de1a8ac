"""Files of megalodon-jax, and of the released PyTorch model."""

import json
from pathlib import Path

import jax
import numpy as np
from megalodon_jax import MegalodonForCausalLM, load_checkpoint, save_checkpoint
from megalodon_jax.checkpoint import model_state_dict

from chomp.errors import ExportError

JAX_FILE = "model.safetensors"
UPSTREAM_FILE = "consolidated.pth"
UPSTREAM_CONFIG = "consolidate_config.json"


def write_jax(model: MegalodonForCausalLM, folder: Path) -> None:
    """Write what `megalodon_jax.load_checkpoint` loads."""
    save_checkpoint(model, folder / JAX_FILE)


def write_upstream(model: MegalodonForCausalLM, folder: Path) -> None:
    """Write a checkpoint of the released PyTorch model, for one model-parallel rank."""
    import torch  # pyright: ignore[reportMissingImports]
    from megalodon_jax.convert import export_upstream_state_dict

    torch.save(export_upstream_state_dict(model), folder / UPSTREAM_FILE)
    text = json.dumps({"model_parallel_size": 1}, indent=2) + "\n"
    (folder / UPSTREAM_CONFIG).write_text(text, encoding="utf-8")


def read_jax(folder: Path, model: MegalodonForCausalLM) -> MegalodonForCausalLM:
    """Load what `write_jax` wrote."""
    return load_checkpoint(folder / JAX_FILE, key=jax.random.PRNGKey(0))


def read_upstream(folder: Path, model: MegalodonForCausalLM) -> MegalodonForCausalLM:
    """Load what `write_upstream` wrote, with the configuration of `model`."""
    from megalodon_jax.convert import load_upstream_checkpoint

    return load_upstream_checkpoint(folder, model.config, key=jax.random.PRNGKey(0))


def check_equal(model: MegalodonForCausalLM, loaded: MegalodonForCausalLM) -> str:
    """Return what to tell of a model that was read back; every bit must be as it was.

    Raises:
        ExportError: a parameter isn't.
    """
    there = model_state_dict(loaded)
    for name, value in model_state_dict(model).items():
        same = value.dtype == there[name].dtype
        if not same or np.asarray(value).tobytes() != np.asarray(there[name]).tobytes():
            raise ExportError(f"the export isn't the model: {name} differs after it was read back")
    return "megalodon-jax reads it back, equal bit for bit"
