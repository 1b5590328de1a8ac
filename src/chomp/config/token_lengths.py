"""Lengths that a config file gives in tokens, as steps: `train.steps: 2e9 tokens`."""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from chomp.config.train import TrainConfig

LENGTHS = frozenset(
    {
        *("train.steps", "train.log_every", "train.eval_every", "train.generate_every"),
        *("train.ema_from", "optim.warmup_steps", "optim.decay_steps", "optim.rewarm_steps"),
        *("checkpoint.save_every", "checkpoint.keep_every", "data.stages.from_step"),
    }
)
"""Keys that may be in tokens."""
PATTERN = r"^[0-9]+(\.[0-9]+)?(e\+?[0-9]{1,2})? ?[KMBT]? tokens$"
_FORM = re.compile(r"(?P<number>[0-9]+(\.[0-9]+)?(e\+?[0-9]{1,2})?) ?(?P<unit>[KMBT]?) tokens")
_UNITS = {"": 1.0, "K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
_OF_A_STEP = ("grad_accum", "batch_size", "seq_len")


class InSteps(NamedTuple):
    """A mapping without lengths in tokens."""

    mapping: Mapping[str, Any]
    left_out: frozenset[str]
    """Keys whose length isn't known, as the tokens of a step aren't."""


def in_steps(mapping: Mapping[str, Any]) -> InSteps:
    """Replace lengths in tokens by the steps that have at least so many.

    A step has `grad_accum * batch_size * seq_len` tokens, padding included.

    Args:
        mapping: of sections, not validated, without references.
    """
    found = dict(_lengths(mapping))
    if not found:
        return InSteps(mapping, frozenset())
    step_tokens = _step_tokens(mapping)
    result = _copied(mapping)
    for (*sections, last), tokens in found.items():
        place: Any = result
        for key in sections:
            place = place[key]
        if step_tokens is None:
            del place[last]
        else:
            place[last] = math.ceil(tokens / step_tokens)
    if step_tokens is None:
        return InSteps(result, frozenset(".".join(map(str, path)) for path in found))
    return InSteps(result, frozenset())


def _lengths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], float]]:
    """Yield where a length in tokens stands, and the tokens."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _lengths(inner, (*path, key))
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from _lengths(inner, (*path, number))
    elif isinstance(value, str) and _name(path) in LENGTHS and (form := _FORM.fullmatch(value)):
        yield path, float(form["number"]) * _UNITS[form["unit"]]


def _name(path: tuple[Any, ...]) -> str:
    return ".".join(part for part in path if isinstance(part, str))


def _step_tokens(mapping: Mapping[str, Any]) -> int | None:
    """Return the tokens of a step; None where the keys that they follow from are wrong."""
    train, product = mapping.get("train") or {}, 1
    for name in _OF_A_STEP:
        size = train.get(name, TrainConfig.model_fields[name].default)
        if type(size) is not int or size < 1:
            return None
        product *= size
    return product


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copied(inner) for key, inner in value.items()}
    return [*map(_copied, value)] if isinstance(value, list | tuple) else value
