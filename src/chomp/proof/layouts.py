"""The ways in which a proof spreads a run over devices and processes."""

import os
import socket
from collections.abc import Iterator
from typing import NamedTuple


class Layout(NamedTuple):
    """Processes of one machine, and the mesh of their virtual devices."""

    processes: int
    devices: int
    """Of each process."""
    fsdp: int = 1
    gather: str = "step"

    @property
    def size(self) -> int:
        """Devices in all."""
        return self.processes * self.devices

    def __str__(self) -> str:
        among = "1 process" if self.processes == 1 else f"{self.processes} processes"
        by_layer = ", by layer" if self.gather == "layer" else ""
        return f"{among}, data {self.size // self.fsdp} x fsdp {self.fsdp}{by_layer}"

    @property
    def overrides(self) -> list[str]:
        """Overrides for this layout."""
        return [
            "parallel.data=-1",
            f"parallel.fsdp={self.fsdp}",
            f"parallel.gather={self.gather}",
            "train.allow_cpu=true",
        ]

    @property
    def environment(self) -> dict[str, str]:
        """Environment of a process with these devices."""
        ours = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(self.devices)}
        return os.environ | ours

    def process_options(self) -> Iterator[list[str]]:
        """Yield each process's options, which find one another at a free port."""
        if self.processes == 1:
            yield []
            return
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            port = server.getsockname()[1]
        for number in range(self.processes):
            yield [
                *("--coordinator", f"127.0.0.1:{port}"),
                *("--processes", str(self.processes)),
                *("--process-id", str(number)),
            ]


ONE = Layout(1, 1)
SPREAD = (
    Layout(1, 2),
    Layout(1, 4, fsdp=4),
    Layout(1, 8, fsdp=2),
    Layout(1, 4, fsdp=2, gather="layer"),
    Layout(2, 2, fsdp=2),
    Layout(4, 1),
)
ELASTIC = (Layout(1, 4, fsdp=2), ONE, Layout(2, 1, fsdp=2))
"""A run that is saved on each and goes on on the next."""
MOST_PROCESSES = max(layout.processes for layout in (*SPREAD, *ELASTIC))
MOST_DEVICES = max(layout.size for layout in (*SPREAD, *ELASTIC))
