"""All that keeps a new run from starting, in one message.

A start ends at the first thing that is wrong. Only then is the rest looked at, so that a user mends
a config once, and a start that succeeds takes no longer.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from chomp.config import Sections
from chomp.data import check_packages, missing_inputs
from chomp.errors import ConfigError, DataError, NetworkError
from chomp.system.jax_runtime import start_jax
from chomp.tracking import missing_trackers


def other_problems(
    config: Sections, invalid: Collection[str] = (), *, alone: bool, own_tokenizer: bool = False
) -> list[str]:
    """Look for all that would keep a run from starting besides what is known.

    Args:
        config: what of the configuration can be used.
        invalid: dotted paths of its keys, or sections, that can't be.
        alone: whether JAX may be started: the run has one process, or they have met.
        own_tokenizer: whether the run has a copy of its tokenizer.

    Returns:
        A line each.
    """
    problems = []
    if "data" not in invalid:
        problems += missing_inputs(config.data, invalid, tokenizer=not own_tokenizer)
    if not any(key.startswith("logging") for key in invalid):
        problems += missing_trackers(config.logging)
    if alone and not {"train", "train.allow_cpu"} & set(invalid):
        try:
            start_jax(allow_cpu=config.train.allow_cpu, compile_cache=None)
        except ConfigError as error:
            problems += error.problems
    return problems


def check_installed(config: Sections) -> None:
    """Check that the packages that data and trackers need are installed.

    Raises:
        ConfigError: some are missing, each with what to install.
    """
    problems = missing_trackers(config.logging)
    try:
        check_packages(config.data)
    except ConfigError as error:
        problems += error.problems
    if problems:
        raise ConfigError(problems)


@contextmanager
def all_at_once(config: Sections, *, own_tokenizer: bool) -> Iterator[None]:
    """Let an error inside tell of everything that keeps the run from starting."""
    try:
        yield
    except NetworkError:
        raise
    except (ConfigError, DataError) as error:
        known = error.problems if isinstance(error, ConfigError) else [str(error)]
        more = other_problems(config, alone=True, own_tokenizer=own_tokenizer)
        if set(more) <= set(known):
            raise
        raise ConfigError(list(dict.fromkeys([*known, *more]))) from error
