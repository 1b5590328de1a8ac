"""Text from a saved run."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax

from chomp.checkpoint.checkpointer import Checkpointer
from chomp.checkpoint.directory import damage_lines
from chomp.config import Config
from chomp.data import Tokenizer
from chomp.errors import ResumeError
from chomp.generation import Sampling, stream_ids
from chomp.models import LanguageModel, build_model
from chomp.run.folder_config import TRUST, load_folder_config
from chomp.run.run_folder import RunFolder
from chomp.system.console import Console
from chomp.system.jax_runtime import start_jax
from chomp.trainer.components import open_tokenizer


@dataclass(frozen=True)
class GenerateRequest:
    """A request for text.

    Attributes:
        run_dir: folder of the run.
        step: `latest` or a saved step.
        prompt: text to continue; an empty one starts from the beginning-of-text token.
        sampling: how to choose tokens; the run's tokenizer adds the one that ends a text.
        seed: of sampling.
        samples: number of continuations.
        trust_remote_code: run the Python code that comes with the run's tokenizer.
    """

    run_dir: Path
    step: str
    prompt: str
    sampling: Sampling
    seed: int
    samples: int
    trust_remote_code: bool = False


def generate_text(request: GenerateRequest, console: Console) -> Iterator[str]:
    """Yield the prompt and its continuations piece by piece, as they come.

    Args:
        request: what to generate.
        console: shows warnings.

    Raises:
        ResumeError: the folder holds no run, or no such checkpoint that is good.
    """
    folder = RunFolder(request.run_dir)
    folder.require_run()
    folder.read_resolved()
    said = [f"{TRUST}=true"] if request.trust_remote_code else []
    config, warnings = load_folder_config(
        folder.resolved_config, said, say_so="--trust-remote-code"
    )
    for warning in warnings:
        console.warn(warning)
    if not _model_of(config).can_generate:
        raise ResumeError(
            f"{request.run_dir}: the {config.model.backend} model can't generate; "
            "only model.backend megalodon can"
        )
    runtime = config.runtime
    start_jax(
        allow_cpu=True,
        compile_cache=runtime.compile_cache,
        compile_cache_gb=runtime.compile_cache_gb,
    )
    config, tokenizer = open_tokenizer(config, folder.tokenizer)
    params = _restore_params(config, folder, request.step, console)
    prompt = tokenizer.encode_prompt(request.prompt)
    sampling = replace(request.sampling, eos_id=tokenizer.eos_id)
    root = jax.random.PRNGKey(request.seed)
    for index in range(request.samples):
        if request.samples > 1:
            yield f"--- sample {index + 1} of {request.samples}\n"
        yield request.prompt
        stream = stream_ids(params, prompt, sampling, jax.random.fold_in(root, index))
        yield from _decoded(stream, tokenizer)
        yield "\n"


def _restore_params(config: Config, folder: RunFolder, step: str, console: Console) -> Any:
    place = folder.inside(config.checkpoint.root_dir or "checkpoints")
    if not place.is_dir():
        raise ResumeError(f"{folder.path} has no checkpoints; train it with checkpoint.enabled")
    checkpoints = Checkpointer(place)
    choice = checkpoints.choose(step)
    if choice.step is None:
        raise ResumeError(f"{folder.path} has no checkpoint yet; train it first")
    for line in damage_lines(choice):
        console.warn(line)
    shapes = jax.eval_shape(_model_of(config).init, jax.random.PRNGKey(0))
    return checkpoints.restore_params(choice.step, shapes)


def _model_of(config: Config) -> LanguageModel:
    # The library's own layers generate: a GPU's kernels needn't be there.
    section = config.model.model_copy(update={"kernels": "xla"})
    return build_model(section, isolate_documents=False)


def _decoded(ids: Iterable[int], tokenizer: Tokenizer) -> Iterator[str]:
    """Yield text as soon as it is certain: a character may be made of several tokens."""
    seen: list[int] = []
    shown = ""
    for token in ids:
        seen.append(token)
        # The whole is decoded each time: pieces alone lose the spaces between some tokens.
        text = tokenizer.decode(seen)
        # U+FFFD at the end may be the beginning of a character.
        if not text.endswith("\ufffd"):
            yield text[len(shown) :]
            shown = text
    yield tokenizer.decode(seen)[len(shown) :]
