"""Panics: errors of Rust libraries that aren't Exceptions."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from chomp.errors import DataError

P = ParamSpec("P")
T = TypeVar("T")


def is_panic(error: BaseException) -> bool:
    """Return whether a Rust library gave up; its class can't be imported."""
    return type(error).__name__ == "PanicException"


def explained(function: Callable[P, T]) -> Callable[P, T]:
    """Return a function of a tokenizer that raises DataError where the library gives up."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **keys: P.kwargs) -> T:
        try:
            return function(*args, **keys)
        except BaseException as error:
            if not is_panic(error):
                raise
            raise DataError(f"data.tokenizer: the library failed in it: {error}") from error

    return wrapped
