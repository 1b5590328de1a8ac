"""`python -m chomp.sweep.worker`: a process that trains runs of a sweep, one after the other.

It takes tasks as lines of JSON on standard input, and answers each with a line on standard output.
What the runs print goes to standard error. When its input ends, the sweep is gone: the run that is
being trained stops and is saved.
"""

import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Any, TextIO

from chomp.system.jax_runtime import prepare_environment
from chomp.system.terminal import guard_streams

TASKS = queue.Queue[dict[str, Any] | None]()


def main(plugins: Sequence[str]) -> None:
    """Take tasks until there are no more."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    guard_streams()
    for warning in prepare_environment():
        print(f"warning: {warning}", file=sys.stderr)
    from chomp.system.plugins import load_plugin

    for module in plugins:
        load_plugin(module)
    from chomp.sweep.training import Training
    from chomp.trainer.launch import work_goes_on

    training = Training()
    threading.Thread(target=_read, daemon=True).start()
    answer(answers, {"ready": True})
    while task := TASKS.get():
        try:
            found = training.do(task)
        except Exception as error:
            answer(answers, {"crashed": f"{type(error).__name__}: {error}"})
            raise
        answer(answers, found)
        if work_goes_on():
            os._exit(0)


def _read() -> None:
    """Pass tasks on, until the sweep says stop or is gone: then the run is to be saved."""
    for line in sys.stdin:
        values = json.loads(line)
        if "stop" in values:
            break
        TASKS.put(values)
    TASKS.put(None)
    # Once: a second signal would end the process at once.
    os.kill(os.getpid(), signal.SIGTERM)


def answer(stream: TextIO, values: dict[str, Any]) -> None:
    """Write a line; a sweep that is gone doesn't read it."""
    try:
        print(json.dumps(values), file=stream, flush=True)
    except BrokenPipeError:
        os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
