"""The rules of lanes: how many parts a corpus may be read in."""

from collections.abc import Iterator

from chomp.config.sections import Sections
from chomp.config.validators.base import Problem, rule


def lanes_problem(lanes: int, batch: int) -> str | None:
    """Say what is wrong with so many lanes for microbatches of `batch` rows, if anything is."""
    if batch % lanes == 0:
        return None
    fitting = [count for count in range(1, batch + 1) if batch % count == 0]
    below = max(count for count in fitting if count < lanes)
    above = min((count for count in fitting if count > lanes), default=None)
    nearest = f"nearest are {below} and {above}" if above else f"nearest is {below}"
    return f"must divide train.batch_size, which is {batch} (got {lanes}); the {nearest}"


@rule("data.lanes", "train.batch_size")
def lanes_divide_the_batch(config: Sections) -> Iterator[Problem]:
    """`data.lanes` divides `train.batch_size`."""
    lanes = config.data.lanes
    if lanes is not None and (problem := lanes_problem(lanes, config.train.batch_size)):
        yield Problem("data.lanes", problem)
