"""A model's loss on texts, summed exactly."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import jax
from jaxtyping import Array, Float, Int


class Score(NamedTuple):
    """What a model made of some texts; scores of parts add up to that of the whole."""

    nats: float
    """Summed negative log-likelihood of the targets."""
    targets: int
    """Tokens that were predicted."""
    bytes: int
    """UTF-8 bytes of these tokens' text."""

    def plus(self, other: "Score") -> "Score":
        """Return the score of both texts."""
        return Score(self.nats + other.nats, self.targets + other.targets, self.bytes + other.bytes)

    @property
    def loss(self) -> float:
        """Nats per target."""
        return self.nats / self.targets

    @property
    def perplexity(self) -> float:
        """The exponential of the loss."""
        return math.exp(min(self.loss, 700.0))

    @property
    def bits_per_byte(self) -> float:
        """Bits per UTF-8 byte of the targets' text, which doesn't depend on the tokenizer.

        NaN where the targets have no bytes, such as an end token alone.
        """
        return self.nats / math.log(2) / self.bytes if self.bytes else math.nan

    def as_values(self) -> dict[str, float | int | None]:
        """Return loss, perplexity, bits per byte, targets and bytes by name.

        What isn't a finite number is None: JSON has no NaN.
        """
        values = {
            "loss": self.loss,
            "perplexity": self.perplexity,
            "bits_per_byte": self.bits_per_byte,
            "targets": self.targets,
            "bytes": self.bytes,
        }
        return {name: value if math.isfinite(value) else None for name, value in values.items()}


def sum_losses(parts: Iterable[tuple[Float[Array, ""], Int[Array, ""]]]) -> tuple[float, int]:
    """Return the summed loss of all batches in nats, and the number of their targets.

    The sum is exact in float64 on the host: thousands of float32 sums would lose digits.

    Args:
        parts: summed loss and number of targets of each batch, on a device; one is computed ahead.
    """
    kept = []
    for part in parts:
        kept.append(part)
        jax.block_until_ready(kept[-2:-1])
    read = jax.device_get(kept)
    return math.fsum(float(loss) for loss, _ in read), sum(int(count) for _, count in read)
