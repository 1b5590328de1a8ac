"""The exported model in PyTorch, compared with the original in JAX."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from megalodon_jax import MegalodonForCausalLM

from chomp.errors import ExportError
from chomp.export.weights import in_dtypes, logits_of
from chomp.generation import Sampling, generate_ids

MOST_TOKENS = 4096
GREEDY_TOKENS = 32
TOLERANCE = 1e-3
"""Of the largest logit: far above rounding errors, far below what a wrong layer gives."""
BFLOAT16_FACTOR = 2.0
"""By how much PyTorch's error in bfloat16 may be larger than JAX's."""


class Sample(NamedTuple):
    """Token ids to compare on.

    Attributes:
        ids: more than two chunks of them, [time].
        prompt: the beginning of a text.
    """

    ids: np.ndarray
    prompt: list[int]


def make_sample(model: MegalodonForCausalLM, prompt: list[int]) -> Sample:
    """Return random tokens for `model`, and the prompt, or some of them where it is empty."""
    length = min(2 * model.config.chunk_size + 7, MOST_TOKENS)
    ids = np.random.default_rng(0).integers(0, model.config.vocab_size, length)
    return Sample(ids.astype(np.int32), prompt or ids[:4].tolist())


def compare(model: MegalodonForCausalLM, folder: Path, sample: Sample) -> str:
    """Load the folder in PyTorch, compare it with `model`, and return what was found.

    Args:
        model: computing in the number format of the export.
        folder: with `config.json` and weights.
        sample: what to compare on.

    Raises:
        ExportError: the two aren't the same model.
    """
    from transformers.utils import logging

    from chomp.export.huggingface.modeling_megalodon import MegalodonForCausalLM as Exported

    logging.disable_progress_bar()
    exported = Exported.from_pretrained(str(folder)).eval()
    ours = logits_of(model, sample.ids[None])[0]
    theirs, padded = torch_logits(exported, sample.ids)
    dtype = np.dtype(model.config.compute_dtype).name
    if dtype == "float32":
        error = max(abs(theirs - ours).max(), abs(padded - ours[: len(padded)]).max())
        limit = TOLERANCE * max(1.0, abs(ours).max())
        found = f"logits differ from JAX's by at most {error:.1e}"
    else:
        exact = logits_of(in_dtypes(model, "float32", "float32"), sample.ids[None])[0]
        error, own = (np.sqrt(np.square(a - exact).mean()) for a in (theirs, ours))
        limit = BFLOAT16_FACTOR * own
        found = f"error of logits {error:.1e} in PyTorch, {own:.1e} in JAX (root mean square)"
    if not error <= limit:  # NaN as well
        raise ExportError(
            f"the export isn't the model: {found}, more than {limit:.1e}; please report this"
        )
    equal = equal_tokens(model, exported, sample.prompt, tie=4 * float(abs(theirs - ours).max()))
    return (
        f"{found}, over {len(sample.ids)} tokens; "
        f"{equal} of {GREEDY_TOKENS} greedy tokens are the same"
    )


def torch_logits(exported: Any, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the logits of all ids, and of the first two thirds of them padded on the left."""
    import torch  # pyright: ignore[reportMissingImports]

    part = len(ids) * 2 // 3
    rows = np.stack([ids, np.concatenate([np.zeros_like(ids[part:]), ids[:part]])])
    mask = np.ones_like(rows)
    mask[1, : len(ids) - part] = 0
    with torch.no_grad():
        out = exported(torch.tensor(rows), attention_mask=torch.tensor(mask), use_cache=False)
    logits = out.logits.float().numpy()
    return logits[0], logits[1, len(ids) - part :]


def equal_tokens(
    model: MegalodonForCausalLM, exported: Any, prompt: list[int], *, tie: float
) -> int:
    """Return after how many tokens the greedy continuations differ, if they do.

    Raises:
        ExportError: they differ where the logits in JAX do, by more than `tie`.
    """
    import torch  # pyright: ignore[reportMissingImports]

    greedy = Sampling(max_tokens=GREEDY_TOKENS, temperature=0.0)
    ours = generate_ids(model, prompt, greedy, jax.random.PRNGKey(0))
    exported.generation_config.eos_token_id = None
    ids = torch.tensor([prompt])
    out = exported.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=GREEDY_TOKENS,
        do_sample=False,
        pad_token_id=0,
    )
    theirs = out[0, len(prompt) :].tolist()
    same = [a == b for a, b in zip(ours, theirs, strict=True)]
    if all(same):
        return GREEDY_TOKENS
    place = same.index(False)
    logits = logits_of(model, np.array([[*prompt, *ours[:place]]]))[0, -1]
    gap = float(logits[ours[place]] - logits[theirs[place]])
    if gap > tie:
        raise ExportError(
            f"the export isn't the model: PyTorch takes token {theirs[place]} where JAX takes "
            f"{ours[place]}, after {place} tokens, with logits {gap:.1e} apart; please report this"
        )
    return place
