"""The start of a run with several processes: they find each other through `jax.distributed`."""

import atexit
import ctypes
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import jax
from jax._src import distributed

from chomp.cohort import Cohort, Hooks
from chomp.errors import ChompError, ConfigError, LostError
from chomp.parallel.board import Board
from chomp.parallel.joined import Joined
from chomp.parallel.launch import Place, check_address
from chomp.parallel.watch import Watch, lost_message

JAX_PATIENCE = 100
"""Seconds by which JAX notices a lost process later than chomp does: it aborts the process."""
DYING = 3.0
"""Seconds in which a process that dies may still take connections."""
THREAD = "chomp-join"


def join(place: Place | None, *, seconds: float, lost_after: float) -> Cohort:
    """Meet the other processes; to be called before JAX starts.

    Args:
        place: of this process; None: it is alone, and nothing is done.
        seconds: to wait for the others.
        lost_after: seconds without a sign of life after which one counts as lost.

    Raises:
        ConfigError: they can't be met, or not in time.
    """
    if place is None:
        return Cohort()
    # Its handler of SIGTERM would replace ours.
    jax.config.update("jax_enable_preemption_service", False)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    hooks = Hooks()

    def end(failure: ChompError) -> None:
        failure.process = place.number or None
        hooks.before_end(failure)
        _say(failure)
        _exit(failure.exit_code)

    _outlive_the_coordinator(place, end)  # from the first connection on
    _connect(place, seconds, lost_after)
    names = [f"process {number}" for number in range(place.size)]
    names[0] += f" ({place.coordinator})"
    board = Board(distributed.global_state.client)
    watch = Watch(board, place.number, names, lost_after, end, hooks)
    watch.start()
    return Joined(board, watch, place.number, place.size, _leave)


def _connect(place: Place, seconds: float, lost_after: float) -> None:
    if place.number == 0:
        _check_port(place.coordinator)
    problem: list[BaseException] = []

    def connect() -> None:
        try:
            jax.distributed.initialize(
                place.coordinator,
                place.size,
                place.number,
                local_device_ids=place.devices,
                cluster_detection_method="deactivate",
                # Its own end of the wait is an abort of the process.
                initialization_timeout=int(seconds) + 3600,
                heartbeat_timeout_seconds=int(lost_after) + JAX_PATIENCE,
                shutdown_timeout_seconds=60,
            )
        except Exception as error:  # noqa: BLE001 - raised by the caller's thread
            problem.append(error)

    thread = threading.Thread(target=connect, name=THREAD, daemon=True)
    thread.start()
    thread.join(seconds)
    if not thread.is_alive() and not problem:
        return
    where = f"at {place.coordinator} (--coordinator)"
    if problem:
        lines = f"the processes can't meet {where}: {str(problem[0]).splitlines()[0]}"
    elif place.number == 0 or _answers(place.coordinator):
        lines = (
            f"not all of the {place.size} processes came {where} in {seconds:g} s "
            "(parallel.join_seconds): start all of them, each with its own --process-id from 0 to "
            f"{place.size - 1}, and look whether one has ended with an error"
        )
    else:
        lines = (
            f"nothing answers {where} in {seconds:g} s (parallel.join_seconds): is process 0 "
            "running on that host, and does the network let this host reach the port?"
        )
    _leave(ConfigError.exit_code)
    raise ConfigError([lines])


def _check_port(address: str) -> None:
    """Check that this host can take connections there: where it can't, jaxlib 0.10 crashes.

    Raises:
        ConfigError: another program has the port.
    """
    _, port = check_address(address)
    try:
        socket.create_server(("", port)).close()
    except OSError as error:
        raise ConfigError(
            [
                f"--coordinator: process 0 can't have port {port} of {socket.gethostname()} "
                f"({error.strerror}); give another one to all processes"
            ]
        ) from error


def _answers(address: str) -> bool:
    try:
        with socket.create_connection(check_address(address), timeout=3.0):
            return True
    except OSError:
        return False


def _leave(code: int | None) -> None:
    """End the connection; with an exit code, have the process end without that."""
    if code is None:
        jax.distributed.shutdown()
    else:
        # Before JAX's own attempt to shut down, which would wait for processes that are gone.
        atexit.register(_exit, code)


def _exit(code: int) -> None:
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _say(failure: ChompError) -> None:
    who = "" if failure.process is None else f"process {failure.process}: "
    for line in str(failure).split("\n"):
        print(f"error: {who}{line}", file=sys.stderr)


def _outlive_the_coordinator(place: Place, end: Callable[[ChompError], None]) -> None:
    """End with a clear error where JAX aborts the process since process 0 is gone.

    JAX's client has no other way to be told: its callback can't be one of Python (jaxlib 0.10).
    """
    if place.number == 0:
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
            if not _answers(place.coordinator):
                name = f"process 0 ({place.coordinator})"
                end(LostError(lost_message(name, "the connection broke")))
            time.sleep(0.1)
        libc.signal(signal.SIGABRT, None)  # the abort, of another cause, goes on

    _kept.append(kind(aborted))
    libc.signal(signal.SIGABRT, ctypes.cast(_kept[-1], ctypes.c_void_p))


_kept: list[Any] = []
"""Callbacks that C code holds."""
