"""Text from a saved run."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import jax

from chomp.commands.saved_model import model_of, open_run_config, restore_model
from chomp.data import Tokenizer
from chomp.errors import ResumeError
from chomp.generation import Sampling, stream_ids
from chomp.run.run_folder import RunFolder
from chomp.system.console import Console


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
        ema: take the average of the parameters instead of the newest ones.
    """

    run_dir: Path
    step: str
    prompt: str
    sampling: Sampling
    seed: int
    samples: int
    trust_remote_code: bool = False
    ema: bool = False


def generate_text(request: GenerateRequest, console: Console) -> Iterator[str]:
    """Yield the prompt and its continuations piece by piece, as they come.

    Args:
        request: what to generate.
        console: shows warnings.

    Raises:
        ResumeError: the folder holds no run, or no such checkpoint that is good.
    """
    folder = RunFolder(request.run_dir)
    config = open_run_config(folder, request.trust_remote_code, console)
    if not model_of(config).can_generate:
        raise ResumeError(
            f"{request.run_dir}: the {config.model.backend} model can't generate; "
            "only model.backend megalodon can"
        )
    saved = restore_model(config, folder, request.step, console, ema=request.ema)
    params, tokenizer = saved.params, saved.tokenizer
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
