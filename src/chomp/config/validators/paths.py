"""The rules between paths: what a run writes goes to places of its own."""

from collections.abc import Iterator
from os.path import normpath
from pathlib import PurePath

from chomp.config.sections import Sections
from chomp.config.validators.base import Problem, rule
from chomp.run_files import RUN_PLACES, beside


@rule(
    "checkpoint.root_dir",
    "logging.metrics_file",
    "logging.log_file",
    "train.profile_dir",
)
def places_are_apart(config: Sections) -> Iterator[Problem]:
    """`checkpoint.root_dir`, `logging.metrics_file`, `logging.log_file` and `train.profile_dir` are
    different places, none inside another, and not those of the run folder's other files.
    """
    taken = {place: f"the run's own {place}" for place in RUN_PLACES}
    for key, value in (
        ("checkpoint.root_dir", config.checkpoint.root_dir or "checkpoints"),
        ("logging.metrics_file", config.logging.metrics_file),
        ("logging.log_file", config.logging.log_file),
        ("train.profile_dir", config.train.profile_dir or "profile"),
    ):
        if value is None:
            continue
        place = PurePath(normpath(value))
        met = [taken[other] for other in taken if _overlap(place, other)]
        if met:
            yield Problem(key, f"must be apart from {met[0]} (got {value!r})")
        else:
            taken[place] = key
            if key == "logging.metrics_file" and place.name:
                taken |= dict.fromkeys(beside(place), f"what {key} keeps beside itself")


def _overlap(one: PurePath, other: PurePath) -> bool:
    return one.is_relative_to(other) or other.is_relative_to(one)
