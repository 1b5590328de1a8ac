"""What each run of a sweep may cost: seconds of the whole process, or tokens."""

import re
from typing import NamedTuple

from chomp.errors import ConfigError

_FORM = re.compile(r"(?P<amount>[0-9.]+(?:e[+]?[0-9]+)?)\s*(?P<unit>s|tokens)", re.IGNORECASE)


class Budget(NamedTuple):
    """Seconds, start and compile included, or tokens."""

    amount: float
    unit: str
    """`s` or `tokens`."""

    @property
    def is_time(self) -> bool:
        """Whether it is in seconds."""
        return self.unit == "s"


def read_budget(text: str) -> Budget:
    """Read `600s` or `2e6tokens`.

    Raises:
        ConfigError: it is neither.
    """
    found = _FORM.fullmatch(text.strip())
    try:
        amount = float(found["amount"]) if found else 0.0
    except ValueError:
        amount = 0.0
    if not found or not amount > 0:
        raise ConfigError([f"--budget {text}: write seconds (600s) or tokens (2e6tokens)"])
    return Budget(amount, found["unit"].lower())


class Costs(NamedTuple):
    """What a run's time goes into, in seconds."""

    once: float
    """Start, compile, the last evaluation, sample and checkpoint, end."""
    step: float
    """A step, with its share of the evaluations, samples and checkpoints on the way."""

    def steps_in(self, seconds: float) -> int:
        """Return the steps of a run that takes so long; less than 1 where none fits."""
        return int((seconds - self.once) / self.step)
