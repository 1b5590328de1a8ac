"""Programs that `fork_server.py` starts, handled as those of `subprocess`."""

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO

SERVER = Path(__file__).with_name("fork_server.py")
LATE = re.compile(r"XLA_FLAGS|HF_\w+|PYTEST_CURRENT_TEST")
"""Variables that nothing reads before a run needs them; others may have been read at an import."""


class ForkedProgram:
    """A started program: the part of `subprocess.Popen` that tests of runs use, pipes of text."""

    def __init__(self, answers: socket.socket, streams: list[IO[str] | None]):
        self._answers = answers
        self.pid = int(answers.recv(32))
        self.returncode: int | None = None
        self.stdout, self.stderr = streams

    def poll(self) -> int | None:
        return self._answer(0)

    def wait(self, timeout: float | None = None) -> int:
        code = self._answer(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        return code

    def communicate(self, timeout: float | None = None) -> tuple[str | None, str | None]:
        end = None if timeout is None else time.monotonic() + timeout
        pipes = [pipe for pipe in (self.stdout, self.stderr) if pipe and not pipe.closed]
        read = dict.fromkeys(pipes, b"")
        while pipes:
            left = None if end is None else max(0.0, end - time.monotonic())
            ready = select.select(pipes, [], [], left)[0]
            if not ready:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            for pipe in ready:
                some = os.read(pipe.fileno(), 1 << 16)
                read[pipe] += some
                if not some:
                    pipes.remove(pipe)
        self.wait(None if end is None else max(0.0, end - time.monotonic()))
        out, err = (read[p].decode() if p in read else None for p in (self.stdout, self.stderr))
        for pipe in read:
            pipe.close()
        return out, err

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def _answer(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._answers], [], [], timeout)[0]:
            self.returncode = int(self._answers.recv(32))
            self._answers.close()
        return self.returncode


class ForkServer:
    """Starts programs without the second or two that Python takes to import what they need."""

    def __init__(self) -> None:
        self._environment = dict(os.environ)
        self._requests, self._there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def close(self) -> None:
        """End the server; what it has started goes on."""
        self._requests.close()
        self._there.close()
        if self._process:
            self._process.wait()

    def _run(self) -> None:
        with self._lock:
            if self._process is None:
                number = self._there.fileno()
                command = [sys.executable, SERVER, str(number)]
                self._process = subprocess.Popen(command, env=self._environment, pass_fds=[number])
                self._there.close()

    def can_start(self, environment: dict[str, str]) -> bool:
        """Say whether its imports are those of a program with these variables."""
        if not hasattr(os, "pidfd_open"):  # not Linux
            return False
        pairs = environment.items() ^ self._environment.items()
        return all(LATE.fullmatch(name) for name, _ in pairs)

    def start(
        self,
        command: list[str],
        environment: dict[str, str],
        cwd: Path | None = None,
        stdout: int | IO[str] = subprocess.PIPE,
        stderr: int | IO[str] = subprocess.PIPE,
    ) -> ForkedProgram:
        """Run a file of Python with arguments as a program of its own."""
        self._run()
        request = {
            "command": command,
            "environment": environment,
            "folder": str(cwd or Path.cwd()),
        }
        answers, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        (out, to_out), (err, to_err) = map(_pipe, (stdout, stderr))
        descriptors = [0, to_out, to_err, there.fileno()]
        socket.send_fds(self._requests, [json.dumps(request).encode()], descriptors)
        for given, descriptor in ((stdout, to_out), (stderr, to_err)):
            if given == subprocess.PIPE:
                os.close(descriptor)
        there.close()
        return ForkedProgram(answers, [out, err])


def _pipe(given: int | IO[str]) -> tuple[IO[str] | None, int]:
    """Return what is read, if anything, and what the program writes to."""
    if given != subprocess.PIPE:
        return None, given if isinstance(given, int) else given.fileno()
    read, write = os.pipe()
    return open(read), write
