"""The start of a run with several processes: they find each other through `jax.distributed`."""

import ctypes
import signal
import socket
import threading
import time
from typing import Any

import jax
from jax._src import distributed

from chomp.coordinator import Coordinator, Hooks
from chomp.distributed.cluster import ProcessInfo, check_address
from chomp.distributed.failure_detector import FailureDetector, lost_message
from chomp.distributed.kv_store import KeyValueStore
from chomp.distributed.process_end import ProcessEnd
from chomp.distributed.process_group import ProcessGroup
from chomp.distributed.rendezvous import (
    ANOTHER,
    NOTHING,
    NotMetError,
    Rendezvous,
    ask_for_address,
    bind_host,
    free_port,
    grpc_address,
    listen,
)
from chomp.distributed.signs_of_life import SignsOfLife
from chomp.errors import ConfigError, LostError

JAX_PATIENCE = 100
"""Seconds by which JAX notices a lost process later than chomp does: it aborts the process."""
DYING = 3.0
"""Seconds in which a process that dies may still take connections."""
CONNECT_SECONDS = 30.0
"""Longest that the connection may take at least, once all are there."""
THREAD = "chomp-join"


def connect(process: ProcessInfo, seconds: float, lost_after: float) -> Coordinator:
    """Meet the other processes; to be called before JAX starts.

    Args:
        process: this process's number, and where the others are.
        seconds: time to wait for the others.
        lost_after: seconds without a sign of life after which one counts as lost.

    Raises:
        ConfigError: they can't be met, or not in time.
    """
    # Its handler of SIGTERM would replace ours.
    jax.config.update("jax_enable_preemption_service", False)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    hooks = Hooks()

    end = ProcessEnd(process.number, hooks)
    ends = time.monotonic() + seconds
    actual, bind = _meet(process, seconds)
    _outlive_the_coordinator(actual, end)  # from the first connection on
    _connect(actual, process, bind, ends, seconds, lost_after, end)
    names = [f"process {number}" for number in range(process.size)]
    names[0] += f" ({process.coordinator})"
    store = KeyValueStore(distributed.global_state.client)
    signs = SignsOfLife(store, process.number, hooks)
    detector = FailureDetector(signs, names, lost_after, end, hooks)
    detector.start()
    return ProcessGroup(store, detector, process.number, process.size, end)


def _meet(process: ProcessInfo, seconds: float) -> tuple[ProcessInfo, str]:
    """Wait for the others; return `process` with the coordinator's own port, and its bind address.

    Raises:
        ConfigError: they don't come, or this process isn't one of theirs.
    """
    host, port = check_address(process.coordinator)
    try:
        if process.number:
            bind, port = "", ask_for_address(host, port, process.size, process.number, seconds)
        else:
            bind, port = _let_in(process, host, port, seconds)
    except NotMetError as missing:
        raise ConfigError([_not_met(process, str(missing), seconds)]) from missing
    return process._replace(
        coordinator=f"{host}:{port}" if ":" not in host else f"[{host}]:{port}"
    ), bind


def _let_in(process: ProcessInfo, host: str, port: int, seconds: float) -> tuple[str, int]:
    bind = bind_host(host)
    try:
        server = listen(bind, port)
    except OSError as error:
        raise ConfigError(
            [
                f"--coordinator: process 0 can't have port {port} of {socket.gethostname()} "
                f"({error.strerror}); give another one to all processes"
            ]
        ) from error
    door = Rendezvous(server, process.size)
    try:
        door.wait(seconds)
        inside = free_port(bind)
        door.open(inside)
    finally:
        door.close()
    return bind, inside


def _not_met(process: ProcessInfo, missing: str, seconds: float) -> str:
    where = f"at {process.coordinator} (--coordinator)"
    if process.number and missing == NOTHING:
        return (
            f"nothing answers {where} in {seconds:g} s (parallel.join_seconds): is process 0 "
            "running on that host, and does the network let this host reach the port?"
        )
    if process.number and missing == ANOTHER:
        return (
            f"another program than process 0 of a run answers {where}: give another port to all "
            "processes"
        )
    who = "" if process.number else f"; missing: {missing}"
    return (
        f"not all of the {process.size} processes came {where} in {seconds:g} s "
        f"(parallel.join_seconds){who}: start all of them, each with its own --process-id from 0 "
        f"to {process.size - 1}, and look whether one has ended with an error"
    )


def _connect(
    process: ProcessInfo,
    given: ProcessInfo,
    bind: str,
    ends: float,
    seconds: float,
    lost_after: float,
    end: ProcessEnd,
) -> None:
    """Have JAX connect the processes, which are all there now."""
    problem: list[BaseException] = []
    _, port = check_address(process.coordinator)

    def connect() -> None:
        try:
            jax.distributed.initialize(
                process.coordinator,
                process.size,
                process.number,
                local_device_ids=process.devices,
                cluster_detection_method="deactivate",
                # Its own end of the wait is an abort of the process.
                initialization_timeout=int(seconds) + 3600,
                heartbeat_timeout_seconds=int(lost_after) + JAX_PATIENCE,
                shutdown_timeout_seconds=60,
                coordinator_bind_address=grpc_address(bind, port),
            )
        except Exception as error:  # noqa: BLE001 - raised by the caller's thread
            problem.append(error)

    thread = threading.Thread(target=connect, name=THREAD, daemon=True)
    thread.start()
    thread.join(max(CONNECT_SECONDS, ends - time.monotonic()))
    if not thread.is_alive() and not problem:
        return
    if problem:
        where = f"at {given.coordinator} (--coordinator)"
        lines = f"the processes can't meet {where}: {str(problem[0]).splitlines()[0]}"
    else:
        lines = _not_met(given, "?", seconds)
    end.alone(ConfigError.exit_code)
    raise ConfigError([lines])


def _answers(address: str) -> bool:
    try:
        with socket.create_connection(check_address(address), timeout=3.0):
            return True
    except OSError:
        return False


def _outlive_the_coordinator(process: ProcessInfo, end: ProcessEnd) -> None:
    """End with a clear error where JAX aborts the process since process 0 is gone.

    JAX's client has no other way to be told: its callback can't be one of Python (jaxlib 0.10).
    """
    if process.number == 0:
        return
    libc: Any = ctypes.CDLL(None)
    kind = ctypes.CFUNCTYPE(None, ctypes.c_int)
    libc.signal.argtypes, libc.signal.restype = [ctypes.c_int, ctypes.c_void_p], ctypes.c_void_p

    first = threading.Lock()

    def aborted(number: int) -> None:
        if not first.acquire(blocking=False):
            time.sleep(10 * DYING)  # several of its threads may abort
        ends = time.monotonic() + DYING
        while time.monotonic() < ends:
            if not _answers(process.coordinator):
                name = f"process 0 ({process.coordinator})"
                end.now(LostError(lost_message(name, "the connection broke")))
            time.sleep(0.1)
        libc.signal(signal.SIGABRT, None)  # the abort, of another cause, goes on

    _kept.append(kind(aborted))
    libc.signal(signal.SIGABRT, ctypes.cast(_kept[-1], ctypes.c_void_p))


_kept: list[Any] = []
"""Callbacks that C code holds."""
