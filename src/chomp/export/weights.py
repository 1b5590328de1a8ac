"""A model's parameters in another number format, and under the released PyTorch names."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from megalodon_jax import MegalodonConfig, MegalodonForCausalLM
from megalodon_jax.checkpoint import model_state_dict

from chomp.models.megalodon.model import Megalodon
from chomp.models.megalodon.weight_files import PARTS, released_name


def in_dtypes(
    model: MegalodonForCausalLM, param_dtype: str, compute_dtype: str
) -> MegalodonForCausalLM:
    """Return the model with its matrices in `param_dtype`, computing in `compute_dtype`.

    Norms, the moving average and the scales of queries and keys stay in float32, as in training.
    """
    config = MegalodonConfig(
        **{
            **vars(model.config),
            "param_dtype": jnp.dtype(param_dtype),
            "compute_dtype": jnp.dtype(compute_dtype),
        }
    )
    shapes = jax.eval_shape(Megalodon(config, False).init, jax.random.PRNGKey(0))
    pairs = zip(jax.tree.leaves(model), jax.tree.leaves(shapes), strict=True)
    leaves = [leaf.astype(shape.dtype) for leaf, shape in pairs]
    return jax.tree.unflatten(jax.tree.structure(shapes), leaves)


def released_tensors(model: MegalodonForCausalLM) -> dict[str, np.ndarray]:
    """Return the parameters by the names and in the layouts of the released PyTorch model.

    Among them are what it keeps beside parameters: rotary frequencies, and priors, which are none.
    """
    config, tensors = model.config, {}
    for name, value in model_state_dict(model).items():
        tensors[released_name(name)] = np.asarray(value)
    for layer in range(config.num_layers):
        average = f"layers.{layer}.mega.cema"
        parts = [tensors.pop(f"{average}.{part}") for part in PARTS]
        tensors[f"{average}.gamma"] = np.stack(parts, -1)
        tensors[f"{average}.omega"] = tensors[f"{average}.omega"][:, None]
    for norm in [
        *(f"layers.{layer}.mega.timenorm" for layer in range(config.num_layers)),
        "output.final_norm",
    ]:
        tensors[f"{norm}.prior_count"] = np.zeros((), np.int64)
        for prior in ("prior_mean", "prior_logv"):
            tensors[f"{norm}.{prior}"] = np.zeros(config.norm_num_groups, np.float32)
    tensors["rope.freqs"] = rope_frequencies(config)
    if model.tied:
        tensors["output.output.weight"] = tensors["embed.weight"].copy()
    return tensors


def rope_frequencies(config: MegalodonConfig) -> np.ndarray:
    """Return the frequencies of rotary positions, [head_dim / 2]."""
    half = config.head_dim // 2
    exponents = np.arange(half, dtype=np.float32) / half
    return np.power(np.float32(config.effective_rope_base), -exponents)


def logits_of(model: MegalodonForCausalLM, ids: np.ndarray) -> np.ndarray:
    """Return the logits of token ids [batch, time], as the library computes them."""
    compiled = eqx.filter_jit(lambda model, ids: model(ids)[0])
    return np.asarray(compiled(model, jnp.asarray(ids)))
