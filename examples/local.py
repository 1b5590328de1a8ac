"""Start a run of several processes on this machine.

    python examples/local.py --processes 2 --devices 2 configs/quickstart.yaml -o parallel.fsdp=2

Everything after the launcher's own options goes to `chomp train`. With `--devices` each process
has so many virtual CPU devices, which is good for trying things out; without, each has the GPU of
its number. Lines of output begin with the number of their process. Signals go to all processes:
Ctrl-C once saves and stops. When one fails, the others end as well; the exit code is that of the
first to fail.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import IO

GRACE = 90.0
"""Seconds for processes to end by themselves after the first: to save, or to notice its loss."""
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


def main() -> int:
    """Start the processes, and return the exit code of the first that fails."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--devices", type=int, help="virtual CPU devices of each process")
    ours, theirs = parser.parse_known_args()
    address = f"127.0.0.1:{free_port()}"
    processes: list[subprocess.Popen[str]] = []
    for number in FORWARDED:
        signal.signal(number, lambda number, frame: tell(processes, number))
    printers = []
    for number in range(ours.processes):
        place = ["--coordinator", address, "--processes", str(ours.processes)]
        process = subprocess.Popen(
            [sys.executable, "-m", "chomp", "train", *theirs, *place, "--process-id", str(number)],
            env=os.environ | devices_of(number, ours.devices),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # else Ctrl-C reaches it twice: a second one ends at once
        )
        processes.append(process)
        printers.append(threading.Thread(target=show, args=(number, process.stdout)))
        printers[-1].start()
    code = wait(processes)
    for printer in printers:
        printer.join()
    return code


def devices_of(number: int, virtual: int | None) -> dict[str, str]:
    """Return the environment variables that give a process its devices."""
    if virtual is None:
        return {"JAX_LOCAL_DEVICE_IDS": str(number)}
    return {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(virtual)}


def free_port() -> int:
    """Return a port at which process 0 can let the others meet."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def show(number: int, lines: IO[str] | None) -> None:
    """Print a process's lines, with its number, until it ends."""
    for line in lines or ():
        print(f"[{number}] {line}", end="", flush=True)


def tell(processes: list[subprocess.Popen[str]], number: int) -> None:
    """Send a signal to those that still run."""
    for process in processes:
        if process.poll() is None:
            process.send_signal(number)


def wait(processes: list[subprocess.Popen[str]]) -> int:
    """Wait for all; kill those that outlive another's failure by `GRACE`. Return the exit code."""
    first, deadline = 0, float("inf")
    while None in (codes := [process.poll() for process in processes]):
        if any(codes) and not first:
            first, deadline = next(filter(None, codes)), time.monotonic() + GRACE
        if time.monotonic() > deadline:
            tell(processes, signal.SIGKILL)
        time.sleep(0.05)
    first = first or next(filter(None, codes), 0)
    return 128 - first if first < 0 else first  # -9: killed by signal 9; shells say 137


if __name__ == "__main__":
    sys.exit(main())
