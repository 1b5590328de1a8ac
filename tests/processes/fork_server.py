"""A process that has imported chomp and JAX, and forks for each program that it is asked to start.

`fork_server.py FD`: requests come through this socket, each a JSON object with the descriptors of
standard input, output and error, and of a socket for the numbers of the process and of its end.
"""

import atexit
import gc
import json
import os
import runpy
import select
import socket
import sys
import threading
from contextlib import suppress
from typing import NoReturn

# All that a run imports, and nothing that starts a thread: a fork has only the one that forks.
import chomp.cli.program
import chomp.trainer.launch  # noqa: F401
from chomp.config import Config

# Reads HF_HOME and others at its import, which tests set for a start.
assert "huggingface_hub" not in sys.modules

MOST_BYTES, DESCRIPTORS = 1 << 20, 4


def serve(requests: socket.socket) -> list[str]:
    """Fork for each request; return in the fork, with the file of its program and its arguments."""
    running: dict[int, tuple[int, int]] = {}
    """By descriptor of a process: its number, and where its exit code goes."""
    while True:
        for ready in select.select([requests, *running], [], [])[0]:
            if ready is not requests:
                pid, answer = running.pop(ready)
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                tell(answer, code)
                os.close(ready)
                os.close(answer)
                continue
            text, descriptors, *_ = socket.recv_fds(requests, MOST_BYTES, DESCRIPTORS)
            if not text:
                os._exit(0)  # nobody is left to ask
            pid = os.fork()
            if pid == 0:
                answers = [answer for _, answer in running.values()]
                unused = [requests.detach(), *running, *answers]
                return become(json.loads(text), descriptors, unused)
            *streams, answer = descriptors
            for stream in streams:
                os.close(stream)
            running[os.pidfd_open(pid)] = pid, answer
            tell(answer, pid)


def tell(answer: int, number: int) -> None:
    with suppress(BrokenPipeError):  # nobody listens any more
        os.write(answer, str(number).encode())


def become(request: dict, descriptors: list[int], unused: list[int]) -> list[str]:
    """Give this process what a program is started with."""
    for number, descriptor in enumerate(descriptors[:3]):
        os.dup2(descriptor, number)
    for descriptor in (*descriptors, *unused):
        os.close(descriptor)
    # Those of before know what was behind them: a terminal, a file, a pipe.
    sys.stdin, sys.stdout = os.fdopen(0), os.fdopen(1, "w")
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace")
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    return request["command"]


def end(code: str | int | None) -> NoReturn:
    """End as Python does, but leave its objects to the system: to free them takes half a second.

    What is run by `subprocess` ends with all of it.
    """
    threading._shutdown()
    atexit._run_exitfuncs()
    if isinstance(code, str):
        print(code, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else code is not None)


if __name__ == "__main__":
    Config()  # what checks values is built when it is first used
    # A fork's collections touch no object of before, which would make it a copy of each.
    gc.collect()
    gc.freeze()
    sys.argv = serve(socket.socket(fileno=int(sys.argv[1])))
    sys.path[0] = os.path.dirname(sys.argv[0])
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as ended:
        end(ended.code)
