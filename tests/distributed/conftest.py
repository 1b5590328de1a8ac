"""Runs of several processes on this host."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from forked import ForkServer

MEMBER = Path(__file__).with_name("member.py")
EIGHT = {"JAX_NUM_CPU_DEVICES": "8"}
# These need eight devices, which a process gets when it starts JAX: `test_devices.py` runs them.
collect_ignore = [] if EIGHT.items() <= os.environ.items() else ["eight_devices"]


@dataclass(frozen=True)
class Left:
    """What a process left behind."""

    code: int
    out: str
    err: str
    end: float
    """When it ended, in seconds since 1970."""


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture
def start(compile_cache: Path, fork_server: ForkServer) -> Iterator[Callable[..., Any]]:
    """Start `python ARGS` with so many devices, in `cwd`; what still runs at the end is killed."""
    started: list[Any] = []

    def run(*args: object, devices: int = 1, cwd: Path | None = None) -> Any:
        count = f"--xla_force_host_platform_device_count={devices}"
        flags = f"{os.environ['XLA_FLAGS']} {count}"
        env = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
        words = [*map(str, args)]
        if isinstance(args[0], Path) and fork_server.can_start(env):
            started.append(fork_server.start(words, env, cwd))
        else:
            pipe = subprocess.PIPE
            keys = {"env": env, "cwd": cwd, "stdout": pipe, "stderr": pipe, "text": True}
            started.append(subprocess.Popen([sys.executable, *words], **keys))
        return started[-1]

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()


def gather(processes: list[Any], seconds: float = 120.0) -> list[Left]:
    """Wait for processes, each with its own end."""
    ends: dict[int, float] = {}
    deadline = time.time() + seconds
    while len(ends) < len(processes):
        for process in processes:
            if process.poll() is not None:
                ends.setdefault(process.pid, time.time())
        assert time.time() < deadline, "a process hangs"
        time.sleep(0.02)
    texts = [process.communicate() for process in processes]
    return [
        Left(process.returncode, out, err, ends[process.pid])
        for process, (out, err) in zip(processes, texts, strict=True)
    ]


@pytest.fixture
def members(start: Callable[..., subprocess.Popen[str]], free_port: int) -> Callable[..., list]:
    """Start the processes of `member.py` that do `what`; only some of them with `numbers`."""

    def run(
        what: str,
        *args: object,
        size: int = 2,
        numbers: list[int] | None = None,
        seconds: float = 60.0,
    ):
        return [
            start(MEMBER, f"127.0.0.1:{free_port}", size, number, what, seconds, *args)
            for number in (range(size) if numbers is None else numbers)
        ]

    return run
