"""The model and the tokenizer of a saved run."""

from dataclasses import dataclass
from typing import Any

import jax

from chomp.checkpoint.checkpointer import Checkpointer
from chomp.checkpoint.directory import damage_lines
from chomp.config import Config
from chomp.data import Tokenizer
from chomp.errors import ResumeError
from chomp.models import LanguageModel, build_model
from chomp.run.folder_config import TRUST, load_folder_config
from chomp.run.run_folder import RunFolder
from chomp.system.console import Console
from chomp.system.jax_runtime import start_jax
from chomp.trainer.components import open_tokenizer


@dataclass(frozen=True)
class SavedModel:
    """A model restored from a checkpoint.

    Attributes:
        config: fitted to the tokenizer.
        tokenizer: of the run.
        params: the parameters, or their average.
        step: after which they were saved.
        checkpoints: the run's.
        ema: whether `params` are their average.
    """

    config: Config
    tokenizer: Tokenizer
    params: Any
    step: int
    checkpoints: Checkpointer
    ema: bool = False


def open_run_config(folder: RunFolder, trust_remote_code: bool, console: Console) -> Config:
    """Return the configuration of a run, as the user wrote it.

    Args:
        folder: of the run.
        trust_remote_code: run the Python code that comes with the run's tokenizer.
        console: shows warnings.

    Raises:
        ResumeError: the folder holds no run.
    """
    folder.require_run()
    folder.read_resolved()
    said = [f"{TRUST}=true"] if trust_remote_code else []
    config, warnings = load_folder_config(
        folder.resolved_config, said, say_so="--trust-remote-code"
    )
    for warning in warnings:
        console.warn(warning)
    return config


def restore_model(
    config: Config, folder: RunFolder, step: str, console: Console, *, ema: bool = False
) -> SavedModel:
    """Start JAX, and return the model and the tokenizer of a checkpoint.

    Args:
        config: as the user wrote it.
        folder: of the run.
        step: `latest` or a saved step.
        console: shows warnings.
        ema: take the average of the parameters (`train.ema`) instead of the newest ones.

    Raises:
        ResumeError: there is no such checkpoint that is good, or it holds no average.
    """
    runtime = config.runtime
    start_jax(
        allow_cpu=True,
        compile_cache=runtime.compile_cache,
        compile_cache_gb=runtime.compile_cache_gb,
    )
    config, tokenizer = open_tokenizer(config, folder.tokenizer)
    place = folder.inside(config.checkpoint.root_dir or "checkpoints")
    if not place.is_dir():
        raise ResumeError(f"{folder.path} has no checkpoints; train it with checkpoint.enabled")
    checkpoints = Checkpointer(place)
    choice = checkpoints.choose(step)
    if choice.step is None:
        raise ResumeError(f"{folder.path} has no checkpoint yet; train it first")
    for line in damage_lines(choice):
        console.warn(line)
    if ema and not checkpoints.has_average(choice.step):
        raise ResumeError(
            f"{checkpoints.path(choice.step)} holds no average of the parameters: it was saved "
            "without train.ema; leave out --ema"
        )
    shapes = jax.eval_shape(model_of(config).init, jax.random.PRNGKey(0))
    params = checkpoints.restore_params(choice.step, shapes, average=ema)
    return SavedModel(config, tokenizer, params, choice.step, checkpoints, ema)


def model_of(config: Config) -> LanguageModel:
    """Return the model as it is outside of training: a GPU's kernels needn't be there."""
    section = config.model.model_copy(update={"kernels": "xla"})
    return build_model(section, isolate_documents=False)
