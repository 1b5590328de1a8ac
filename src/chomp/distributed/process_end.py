"""The end of a process that is connected with others."""

import atexit
import logging
import os
import sys

import jax

from chomp.coordinator import Hooks
from chomp.errors import ChompError


class ProcessEnd:
    """Ends this process, or its connection, without hanging in JAX's own end.

    Args:
        number: this process's.
        hooks: calls into this process.
    """

    def __init__(self, number: int, hooks: Hooks):
        self._number, self._hooks = number, hooks

    def now(self, failure: ChompError) -> None:
        """End the process at once, in any thread, with an error that is recorded and shown."""
        failure.process = self._number or None
        self._hooks.before_end(failure)
        _show(failure)
        _exit(failure.exit_code)

    def alone(self, code: int) -> None:
        """Have the process end with this exit code where the others may be gone."""
        # Before JAX's own attempt to shut down, which would wait for processes that are gone.
        atexit.register(_exit, code)

    def with_the_others(self) -> None:
        """End the connection, as all processes do now."""
        jax.distributed.shutdown()


def _exit(code: int) -> None:
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _show(failure: ChompError) -> None:
    who = "" if failure.process is None else f"process {failure.process}: "
    for line in str(failure).split("\n"):
        print(f"error: {who}{line}", file=sys.stderr)
