"""Choose a language model by its name in the configuration."""

from typing import Protocol

import jax

from chomp.config import ModelConfig
from chomp.config.registry import MODELS
from chomp.errors import ConfigError
from chomp.models.base import LanguageModel
from chomp.models.dummy import Dummy
from chomp.models.megalodon.initial import InitialValues
from chomp.models.megalodon.model import Megalodon, megalodon_config


class BuildModel(Protocol):
    """Builds a model; no parameters are made yet."""

    def __call__(
        self, config: ModelConfig, *, isolate_documents: bool, platform: str | None
    ) -> LanguageModel:
        """Return the model, as `build_model` does."""
        ...


def register_model(name: str, build: BuildModel) -> None:
    """Let `model.backend` name a model.

    Args:
        name: that stands for it.
        build: builds it.

    Raises:
        ConfigError: the name can't be registered.
    """
    MODELS.register(name, build)


def build_model(
    config: ModelConfig, *, isolate_documents: bool, platform: str | None = None
) -> LanguageModel:
    """Return the model that `config.backend` names; no parameters are made yet.

    Args:
        config: the `model` section, with the vocabulary already fitted to the tokenizer.
        isolate_documents: restart the model's state at each document of a row.
        platform: that its programs are for (`cpu`, `gpu`); None: the one that JAX runs on.

    Raises:
        ConfigError: `config.kernels` aren't for the platform.
    """
    if config.backend in MODELS:
        return MODELS[config.backend](
            config, isolate_documents=isolate_documents, platform=platform
        )
    if config.backend == "dummy":
        return Dummy(vocab_size=config.vocab_size, dim=config.d_model)
    if config.kernels == "pallas" and (found := platform or jax.default_backend()) != "gpu":
        message = "must be auto or xla on other devices than NVIDIA GPUs"
        raise ConfigError([f"model.kernels: {message} (got pallas on {found})"])
    initial = InitialValues(config.init_zero_head, config.init_zero_outputs, config.init_memory)
    return Megalodon(
        megalodon_config(config),
        isolate_documents,
        config.fast_ops,
        platform,
        _kernels(config, platform),
        initial,
    )


def _kernels(config: ModelConfig, platform: str | None) -> str:
    """Return `pallas` or `xla`."""
    if config.kernels != "auto":
        return config.kernels
    on_gpu = (platform or jax.default_backend()) == "gpu"
    # GPUs that programs are compiled for without them all have tensor cores for bfloat16.
    return "pallas" if config.fast_ops and on_gpu and (platform or _fits_kernels()) else "xla"


def _fits_kernels() -> bool:
    """Say whether JAX's GPU is one of NVIDIA's that chomp's kernels are written for."""
    capability = getattr(jax.local_devices()[0], "compute_capability", "")
    try:
        return float(capability) >= 8.0
    except ValueError:  # of AMD: gfx942
        return False
