"""A folder that `AutoModelForCausalLM.from_pretrained` of transformers loads."""

import json
import shutil
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from megalodon_jax import MegalodonConfig, MegalodonForCausalLM
from safetensors.numpy import save

from chomp.data import Tokenizer
from chomp.export.weights import released_tensors

MODULES = ("configuration_megalodon.py", "modeling_megalodon.py")
FIELDS = (
    *("vocab_size", "model_dim", "num_layers", "num_heads", "z_dim", "value_dim"),
    *("ffn_hidden_dim", "cema_ndim", "chunk_size", "norm_num_groups", "norm_eps", "swiglu"),
    *("rescale_nffn", "scale_emb", "norm_affine", "output_size"),
)
"""What the configuration of the folder's model takes from the library's by the same name."""


def write_hf(model: MegalodonForCausalLM, tokenizer: Tokenizer, folder: Path) -> None:
    """Write weights, configurations and the modules of PyTorch that read them.

    Args:
        model: in the number format of the export.
        tokenizer: of the run, for its control tokens.
        folder: to write to.
    """
    data = save(released_tensors(model), metadata={"format": "pt"})
    (folder / "model.safetensors").write_bytes(data)
    config = model_config(model.config) | control_tokens(tokenizer, model.config)
    generation = control_tokens(tokenizer, model.config)
    for name, content in ("config.json", config), ("generation_config.json", generation):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    here = Path(__file__).parent / "huggingface"
    for name in MODULES:
        shutil.copyfile(here / name, folder / name)


def model_config(config: MegalodonConfig) -> dict[str, Any]:
    """Return the content of `config.json` without control tokens."""
    return {
        "architectures": ["MegalodonForCausalLM"],
        "auto_map": {
            "AutoConfig": "configuration_megalodon.MegalodonConfig",
            "AutoModelForCausalLM": "modeling_megalodon.MegalodonForCausalLM",
        },
        "model_type": "megalodon",
        "dtype": jnp.dtype(config.param_dtype).name,
        **{name: getattr(config, name) for name in FIELDS},
        "rope_base": config.effective_rope_base,
        "softmax_dtype": jnp.dtype(config.attention_softmax_dtype).name,
        "tie_word_embeddings": config.share_emb,
    }


def control_tokens(tokenizer: Tokenizer, config: MegalodonConfig) -> dict[str, int]:
    """Return the ids of the control tokens that there are; padding always has one."""
    ids = {"bos": tokenizer.bos_id, "eos": tokenizer.eos_id, "pad": tokenizer.pad_id}
    if ids["pad"] is None:  # it is masked: any id does
        ids["pad"] = next(i for i in (tokenizer.eos_id, config.pad_token_id, 0) if i is not None)
    return {f"{role}_token_id": i for role, i in ids.items() if i is not None}
