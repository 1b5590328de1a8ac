"""Real processes that find each other on this host; `member.py` says what they do."""

import ast
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chomp.coordinator import Coordinator
from chomp.distributed.cluster import ProcessInfo
from chomp.distributed.initialize import connect
from chomp.distributed.process_group import disagreements
from chomp.errors import ConfigError, Interrupted

from .conftest import Left, gather

Members = Callable[..., list[Any]]
LOST = 75
# Signs of life come each second at most, and this machine may be busy.
SOON = 25.0


def gone_at(left: Left) -> float:
    return next(float(line.split()[1]) for line in left.out.splitlines() if line[:5] == "gone ")


def test_three_processes_agree_exchange_and_follow_the_first(members: Members) -> None:
    left = gather(members("work", size=3))
    assert [one.code for one in left] == [0, 0, 0], left
    assert all("folder made by 0" in one.out for one in left)


def test_all_draw_save_fail_and_stop_at_the_same_batch(members: Members) -> None:
    left = gather(members("steps"))
    assert [one.code for one in left] == [0, 0], left
    first, second = ([ast.literal_eval(line) for line in one.out.splitlines()] for one in left)
    end, save, broken, stop = first
    # The second's documents end first.
    assert end == [[(1, 4), False], [(2, 5), False], [(3,), False], "end"]
    # It alone gets the signals, and has the error.
    assert save == [[(1, 4), False], [(2, 5), True], "end"]
    assert broken == [[(1, 4), False], "process 1: broken"]
    assert stop == ["stop 15"]
    assert second == [end, save, [[(1, 4), False], "broken"], stop]


def test_shared_arrays_are_saved_by_all_and_refused_for_all(
    members: Members, tmp_path: Path
) -> None:
    left = gather(members("saves", tmp_path / "checkpoints"))
    assert [one.code for one in left] == [0, 0], left
    for one in left:
        assert "same True 1" in one.out
        assert "checkpoint of step 2 not saved: process 1: " in one.out
        assert one.out.splitlines()[-1].endswith("1 [1]")
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["1"]


@pytest.mark.parametrize(
    ("what", "codes", "words"),
    [
        ("refused", [2, 2], ["no such file", "no such file"]),
        ("disagree", [2, 2], ["train.steps: 10 in process 0, 11 in process 1"] * 2),
        ("fail", [2, 2], ["process 1 ended: shard 3 is damaged", "shard 3 is damaged"]),
        ("lead_badly", [1, 1], ["ValueError: a bug", "ended: ValueError: a bug"]),
        ("out_of_step", [1, 1], ["process 1 is at 'at 1', 0 at 'at 0'"] * 2),
    ],
)
def test_an_error_of_one_ends_all(
    members: Members, what: str, codes: list[int], words: list[str]
) -> None:
    left = gather(members(what))
    assert [one.code for one in left] == codes, left
    for one, word in zip(left, words, strict=True):
        assert word in one.out + one.err


@pytest.mark.parametrize("what", ["kill", "collective", "hang"])
def test_the_others_notice_a_killed_process(members: Members, what: str) -> None:
    """While they wait for it; in a program of all devices; and where Python never comes to."""
    other, killed = gather(members(what))
    assert killed.code == -signal.SIGKILL
    assert other.code == LOST, other
    assert "process 1 is lost" in other.out + other.err
    assert "--resume latest" in other.out + other.err
    assert other.end - gone_at(killed) < SOON
    assert what != "hang" or "recorded LostError" in other.out


def test_a_killed_first_process_ends_the_others(members: Members) -> None:
    killed, other = gather(members("kill_leader"))
    assert other.code == LOST, other
    assert "process 0 (127.0.0.1:" in other.out + other.err
    assert other.end - gone_at(killed) < SOON


def test_a_suspended_first_process_ends_the_others(members: Members) -> None:
    """As a host that is cut off: no connection breaks, and nobody answers."""
    processes = members("suspend_leader")
    [other] = gather(processes[1:])
    os.kill(processes[0].pid, signal.SIGKILL)
    assert other.code == LOST, other
    assert "process 0 (127.0.0.1:" in other.out + other.err


@pytest.mark.parametrize(
    ("number", "words"), [(0, "not all of the 2 processes came"), (1, "nothing answers at 127.")]
)
def test_the_wait_for_the_others_is_bounded(members: Members, number: int, words: str) -> None:
    begun = time.time()
    [alone] = gather(members("work", numbers=[number], seconds=1.5))
    assert alone.code == 2, alone
    assert words in alone.out
    assert alone.end - begun < SOON


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(ConfigError, match=r"--coordinator: process 0 can't have port \d+ of"):
            connect(ProcessInfo(address, 2, 0), seconds=5, lost_after=5)


def test_alone_nothing_is_exchanged() -> None:
    alone = Coordinator()
    assert (alone.size, alone.is_leader) == (1, True)
    marker = object()  # no JSON value: nothing is encoded
    assert alone.gather_and_decide("parts", marker) == [marker]
    assert alone.on_leader("work", lambda: marker) is marker
    with pytest.raises(Interrupted), alone.interruptible("work"):
        raise Interrupted


def test_disagreements_name_the_processes() -> None:
    parts = [{"a": 1, "b": 0}, {"a": 2, "b": 0}, *[{"a": 1, "b": 0}] * 5, {"b": 0}]
    assert disagreements(parts) == [
        "  a: 1 in processes 0, 2, 3 and 3 more, 2 in process 1, null in process 7"
    ]
