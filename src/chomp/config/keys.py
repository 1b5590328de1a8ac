"""The names of all keys, and what a wrong one was probably meant to be."""

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from functools import cache

from pydantic.fields import FieldInfo

from chomp.config.base import Section
from chomp.config.schema import Config

OPTIONS = ("model.options", "data.options")
"""Mappings whose keys are the user's own."""

RETIRED = {
    "model.max_cache_len": "the cache for generation has the size of model.chunk_size",
    "model.cache_unbounded": "the cache for generation has the size of model.chunk_size",
    "model.max_positions": "rotary positions have no limit",
    "model.gemm_backend": "XLA chooses how products are computed; their number formats are "
    "model.compute_dtype and model.accum_dtype",
    "data.device_put": "batches always go to the device in the background",
    "data.state_update_interval": "the data position is exact at every step",
    "data.tokenizer.hf_use_fast": "fast tokenizers are always used",
    "model.attention_dropout_mode": "dropout is on attention's weights, after the softmax",
    "model.attention_window": "attention reaches as far as model.chunk_size",
    "model.use_associative_segment_scan": "model.fast_ops chooses how documents are kept apart",
    "model.loss_softmax_dtype": "the loss is always computed in float32",
    "data.hf_eval_holdout_fraction": "data.max_eval_samples says how many documents are held out",
    "data.window_shuffle_tokens": "documents are shuffled, by data.shuffle_buffer_size",
    "optim.total_steps": "the rate falls until train.steps, or for optim.decay_steps after the "
    "warm-up",
    "train.eval_failure_policy": "an evaluation that fails ends the run, which can be resumed",
    "checkpoint.resume_compat": "a resume takes --allow-change KEY for each change that is meant",
}
"""Keys of the earlier harness that mean nothing any more, and why none is needed."""

RENAMED = {
    "model.attention_softmax_dtype": "model.softmax_dtype",
    "model.segment_masking": "data.isolate_documents",
    "data.packing_strict_segments": "data.isolate_documents",
    "checkpoint.max_save_checkpoints": "checkpoint.max_to_keep",
    "logging.console_every": "train.log_every",
    **{
        f"logging.wandb_{name}": f"logging.wandb.{name}"
        for name in ("enabled", "project", "entity", "run_name", "mode", "tags")
    },
}
"""Keys of the earlier harness by what they are called now."""


def section_class(field: FieldInfo) -> type[Section] | None:
    """Return the class of a field that is a section; None where it is a value."""
    annotation = field.annotation
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return None


def fields(section: type[Section] = Config, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield the dotted path and definition of every value, depth first, in order."""
    for name, field in section.model_fields.items():
        inner = section_class(field)
        if inner is None:
            yield prefix + name, field
        else:
            yield from fields(inner, f"{prefix}{name}.")


@cache
def known_paths() -> tuple[str, ...]:
    """List the dotted paths of all keys and sections."""
    values = [path for path, _ in fields()]
    sections = {path.rpartition(".")[0] for path in values}
    outer = {path.partition(".")[0] for path in sections}
    return (*values, *sorted(sections | outer))


def nearest_path(path: str, others: Sequence[str] = ()) -> str | None:
    """Return the known path (or one of `others`) that a wrong one was probably meant to be.

    A near name in the same section goes first, then the same name in another section, then a
    near one anywhere.
    """
    candidates = (*known_paths(), *others)
    section, _, name = path.rpartition(".")
    siblings = {
        known.rpartition(".")[2]: known
        for known in candidates
        if known.rpartition(".")[0] == section
    }
    for match in get_close_matches(name, siblings, n=1):
        return siblings[match]
    for known in candidates:
        if known.rpartition(".")[2] == name:
            return known
    for match in get_close_matches(path, candidates, n=1, cutoff=0.85):
        return match
    return None
