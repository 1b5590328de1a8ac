"""The names of all keys, and what a wrong one was probably meant to be."""

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from functools import cache

from pydantic.fields import FieldInfo

from chomp.config.schema import Config
from chomp.config.section import Section

RETIRED = {
    "model.max_cache_len": "the cache for generation has the size of model.chunk_size",
    "model.cache_unbounded": "the cache for generation has the size of model.chunk_size",
    "model.max_positions": "rotary positions have no limit",
    "model.gemm_backend": "XLA chooses how products are computed; their number formats are "
    "model.compute_dtype and model.accum_dtype",
    "data.device_put": "batches always go to the device in the background",
    "data.state_update_interval": "the data position is exact at every step",
    "data.tokenizer.hf_use_fast": "fast tokenizers are always used",
}
"""Keys of the earlier harness that mean nothing any more, and why none is needed."""


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
