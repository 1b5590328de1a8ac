"""The arms of a sweep: values of the configuration that are compared with each other."""

import itertools
import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from chomp.errors import ConfigError

DEFAULT = "default"
"""Name of the arm that is the configuration as it is."""
OPENING, CLOSING, QUOTES = "[{(", ")}]", "\"'"
MOST = 100_000
"""Combinations that a sweep may have."""


class Axis(NamedTuple):
    """A key of the configuration, and the values that it is given."""

    key: str
    values: tuple[str, ...]
    """As the user wrote them, in YAML."""

    def overrides(self) -> list[str]:
        """Return an override for each value."""
        return [f"{self.key}={value}" for value in self.values]


class Arm(NamedTuple):
    """Values that are trained with, with each of the seeds."""

    name: str
    overrides: tuple[str, ...]
    """`key=value` in YAML, as on the command line."""


class Choice(NamedTuple):
    """How the values of several keys are combined: by default each with each."""

    zipped: bool = False
    """The first values together, the second values together, and so on."""
    random: int | None = None
    """So many of the combinations, drawn at random; always the same ones first."""


def read_axis(text: str) -> Axis:
    """Read `key=value` or `key=value,value`; commas in brackets and quotes divide nothing.

    Raises:
        ConfigError: it isn't of this form, or a value is missing.
    """
    key, equals, rest = text.partition("=")
    key = key.strip()
    if not equals or not key or key.startswith("-"):
        raise ConfigError([f"{text!r}: must have the form key=value or key=value,value"])
    values = tuple(part.strip() for part in _split(rest))
    if not all(values):
        raise ConfigError([f"{key}: a value is missing (got {rest!r}); write null for none"])
    return Axis(key, values)


def _split(text: str) -> Iterator[str]:
    depth, quote, begin = 0, "", 0
    for at, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in QUOTES:
            quote = letter
        elif letter in OPENING:
            depth += 1
        elif letter in CLOSING:
            depth -= 1
        elif letter == "," and depth == 0:
            yield text[begin:at]
            begin = at + 1
    yield text[begin:]


def read_axes(texts: Sequence[str]) -> list[Axis]:
    """Read all arguments of a sweep.

    Raises:
        ConfigError: with a line for each that is wrong.
    """
    axes, problems = list[Axis](), list[str]()
    for text in texts:
        try:
            axis = read_axis(text)
        except ConfigError as error:
            problems += error.problems
            continue
        if axis.key in {other.key for other in axes}:
            problems.append(f"{axis.key}: is given twice; write its values with commas between")
        axes.append(axis)
    if problems:
        raise ConfigError(problems)
    return axes


def make_arms(axes: Sequence[Axis], choice: Choice, baseline: str | None) -> list[Arm]:
    """Return the arms: the combinations of all values of the axes that have several.

    Args:
        axes: those with one value are a part of every arm's configuration, and of no name.
        choice: how values are combined.
        baseline: `default` adds the configuration as it is, in front.

    Raises:
        ConfigError: they can't be combined so, or two arms are the same.
    """
    swept = [axis.overrides() for axis in axes if len(axis.values) > 1]
    if not swept:
        return [Arm(DEFAULT, ())]
    arms = [Arm(",".join(parts), tuple(parts)) for parts in _combined(swept, choice)]
    count = Counter(arm.name for arm in arms)
    if len(count) < len(arms):
        raise ConfigError([f"{count.most_common(1)[0][0]}: is given twice"])
    return [Arm(DEFAULT, ()), *arms] if baseline == DEFAULT else arms


def _combined(swept: list[list[str]], choice: Choice) -> Iterator[tuple[str, ...]]:
    if choice.zipped:
        if len({len(values) for values in swept}) > 1:
            counts = ", ".join(f"{v[0].partition('=')[0]} {len(v)}" for v in swept)
            raise ConfigError([f"--zip: all keys must have as many values (got {counts})"])
        yield from zip(*swept, strict=True)
        return
    count = math.prod(map(len, swept))
    if count > MOST:
        raise ConfigError([f"{count:,} combinations are too many; at most {MOST:,} are possible"])
    every = itertools.product(*swept)
    if choice.random is None or choice.random >= count:
        yield from every
        return
    combinations = list(every)
    random.Random(0).shuffle(combinations)
    yield from combinations[: choice.random]


def check_baseline(arms: Sequence[Arm], baseline: str | None) -> str:
    """Return the name of the arm that the others are compared with; without a word the first.

    Raises:
        ConfigError: there is no such arm.
    """
    names = [arm.name for arm in arms]
    if baseline is None:
        return names[0]
    if baseline not in names:
        shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        raise ConfigError([f"--baseline {baseline}: there is no such arm; {DEFAULT}, or {shown}"])
    return baseline
