"""A lane: one of the parts that a corpus is read in."""

from typing import NamedTuple

LANE_SEED = 0x2545F491
"""Lanes of one seed shuffle differently: neighbours of one file would stay neighbours otherwise."""


class Lane(NamedTuple):
    """Part `number` of `of`. The default is the whole corpus."""

    number: int = 0
    of: int = 1

    def seed(self, seed: int) -> int:
        """Return the seed of its own order; the first lane's is `seed`."""
        return (seed + self.number * LANE_SEED) % 2**32


WHOLE = Lane()
