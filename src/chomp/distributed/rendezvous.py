"""The door at which the processes of a run meet, before JAX connects them.

JAX's coordinator takes whoever connects, and a stranger, be it only another run on the same port
or a process that was started twice, aborts the run in all processes. So the port that everybody
knows is this door's: it lets each process in once, tells it where the coordinator is going to be,
and closes.
"""

import ipaddress
import json
import os
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from chomp.errors import ConfigError

BIND = "JAX_COORDINATOR_BIND_ADDRESS"
EVERYWHERE = ""
"""Binds to all interfaces."""
LINE = 4096
"""Bytes of a message at most."""
READ_SECONDS = 10.0
"""Longest that a caller may take to say who it is."""
DELAY = 0.2
NOTHING, ANOTHER = "nothing answers", "another program answers"
"""Reasons that a process can't reach process 0."""


class NotMetError(Exception):
    """Time is up; the message says who wasn't there."""


def bind_host(host: str, environ: Mapping[str, str] | None = None) -> str:
    """Return the address that process 0 takes connections at, for the host it is known by.

    All interfaces where that is none of this host's own (it is translated on the way), or where
    only this host knows it as its own (Debian names itself 127.0.1.1).
    """
    environ = os.environ if environ is None else environ
    if environ.get(BIND):
        return environ[BIND].rpartition(":")[0].strip("[]")
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return EVERYWHERE
    for family, *_, where in found:
        address = str(where[0])
        if ipaddress.ip_address(address.partition("%")[0]).is_loopback and not _means_itself(host):
            continue
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.bind((address, 0))
            return address
        except OSError:
            continue
    return EVERYWHERE


def _means_itself(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def listen(bind: str, port: int) -> socket.socket:
    """Open the door. Raises OSError if the port can't be had."""
    if bind == EVERYWHERE and socket.has_dualstack_ipv6():
        return socket.create_server((bind, port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server((bind, port), family=_family(bind))


def _family(bind: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in bind else socket.AF_INET


def grpc_address(bind: str, port: int) -> str:
    """Return an address to bind to as gRPC writes it."""
    host = "[::]" if bind == EVERYWHERE else f"[{bind}]" if ":" in bind else bind
    return f"{host}:{port}"


def free_port(bind: str) -> int:
    """Return a port that nobody has."""
    with listen(bind, 0) as server:
        return server.getsockname()[1]


class Rendezvous:
    """Process 0's side.

    Args:
        server: socket opened by `listen`.
        size: number of processes.
    """

    def __init__(self, server: socket.socket, size: int):
        self._server, self._size = server, size
        self._there: dict[int, socket.socket] = {}
        self._lock = threading.Lock()

    def wait(self, seconds: float) -> None:
        """Wait until every process has come.

        Raises:
            NotMetError: not all of them did.
        """
        ends = time.monotonic() + seconds
        self._server.settimeout(DELAY)
        while missing := self._missing():
            if time.monotonic() > ends:
                raise NotMetError(", ".join(map(str, missing)))
            try:
                caller, _ = self._server.accept()
            except OSError:  # nobody came meanwhile
                continue
            threading.Thread(target=self._meet, args=(caller,), daemon=True).start()

    def _missing(self) -> list[int]:
        with self._lock:
            for number in [n for n, caller in self._there.items() if _is_gone(caller)]:
                self._there.pop(number).close()
            return sorted({*range(1, self._size)} - self._there.keys())

    def _meet(self, caller: socket.socket) -> None:
        """Hear who it is: one of us stays, one that can't be is told why, a stranger is let go."""
        caller.settimeout(READ_SECONDS)
        told = _receive(caller)
        number = told.get("process")
        if not isinstance(number, int):
            caller.close()
            return
        problem = None
        with self._lock:
            if told.get("processes") != self._size:
                problem = f"it has {self._size} processes, not {told.get('processes')}"
            elif not 0 < number < self._size:
                problem = f"its processes have the numbers 0 to {self._size - 1}, and 0 is there"
            elif (before := self._there.get(number)) and not _is_gone(before):
                problem = f"its process {number} is there already"
            else:
                self._there[number] = caller
                return
        _send(caller, {"problem": problem})
        caller.close()

    def open(self, port: int) -> None:
        """Tell all where the coordinator is going to be, and close."""
        for caller in self._there.values():
            _send(caller, {"port": port})
        self.close()

    def close(self) -> None:
        """Close, and let go whoever has come."""
        self._server.close()
        for caller in self._there.values():
            caller.close()


def ask_for_address(host: str, port: int, size: int, number: int, seconds: float) -> int:
    """Wait at process 0's door; return the coordinator's port.

    Raises:
        ConfigError: this process isn't one of that run's.
        NotMetError: the door wasn't opened in time.
    """
    ends = time.monotonic() + seconds
    heard = NOTHING
    while time.monotonic() < ends:
        try:
            with socket.create_connection((host, port), timeout=READ_SECONDS) as door:
                _send(door, {"process": number, "processes": size})
                door.settimeout(max(DELAY, ends - time.monotonic()))
                told = _receive(door)
        except OSError:
            heard = NOTHING
            time.sleep(DELAY)
            continue
        if isinstance(told.get("problem"), str):
            raise ConfigError(
                [
                    f"--coordinator: the run at {host}:{port} isn't this process's: "
                    f"{told['problem']}; give another port, or end the process that is there"
                ]
            )
        if isinstance(told.get("port"), int):
            return told["port"]
        heard = "" if time.monotonic() >= ends else ANOTHER
        time.sleep(DELAY)
    raise NotMetError(heard)


def _send(to: socket.socket, message: dict[str, Any]) -> None:
    with suppress(OSError):  # who is gone will be missed by JAX
        to.sendall(json.dumps(message).encode() + b"\n")


def _is_gone(caller: socket.socket) -> bool:
    """Whether the process at the other end has closed the connection, or has ended."""
    caller.setblocking(False)
    try:
        return caller.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        caller.settimeout(READ_SECONDS)


def _receive(where: socket.socket) -> dict[str, Any]:
    """Return a message; an empty one if none came, or something else."""
    data = b""
    try:
        while not data.endswith(b"\n") and len(data) < LINE:
            more = where.recv(LINE)
            if not more:
                break
            data += more
        message = json.loads(data)
    except (OSError, ValueError, RecursionError):
        return {}
    return message if isinstance(message, dict) else {}
