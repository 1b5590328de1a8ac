"""Python's collector of reference cycles, kept out of the start and of the steps.

After a start there are some 300,000 objects, which a full collection looks through for 0.1 to
0.2 s of processor time, at any moment. Nearly all of them stay until the end, so once the first
steps are taken they are collected once and then left alone (`gc.freeze`): later collections look
at what is new.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def deferred_collection() -> Iterator[None]:
    """Collect nothing inside, until `settle` is called."""
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.enable()


def settle() -> None:
    """Collect what the start has left, and leave the rest alone from now on.

    Does nothing outside of `deferred_collection`.
    """
    if not gc.isenabled():
        gc.collect()
        gc.freeze()
        gc.enable()
