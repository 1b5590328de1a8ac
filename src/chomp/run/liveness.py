"""Whether the process of a heartbeat is still there."""

import socket

import psutil

from chomp.run.heartbeat import HeartbeatReading, Phase

FRESH = 10.0
"""Seconds since the last sign of life after which a process on another host counts as gone."""


def is_running(reading: HeartbeatReading | None, host: str | None, now: float) -> bool:
    """Whether the heartbeat's process is there.

    The lock isn't tried: a run that starts in the same moment would find it taken.
    """
    if reading is None or reading.phase is Phase.ENDED:
        return False
    if host not in (None, socket.gethostname()):
        return now - reading.alive < FRESH
    try:
        process = psutil.Process(reading.pid)
        # A process that came after the last sign of life has only inherited the number.
        return (
            process.status() != psutil.STATUS_ZOMBIE and process.create_time() < reading.alive + 1
        )
    except psutil.NoSuchProcess:
        return False
