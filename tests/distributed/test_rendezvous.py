"""The door at which processes meet: who belongs to the run comes in, and nobody else."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

import pytest

from chomp.distributed import rendezvous
from chomp.distributed.rendezvous import (
    ANOTHER,
    BIND,
    EVERYWHERE,
    NOTHING,
    NotMetError,
    Rendezvous,
    ask_for_address,
    bind_host,
    free_port,
    grpc_address,
    listen,
)
from chomp.errors import ConfigError

HERE = "127.0.0.1"


@pytest.fixture
def opened() -> Iterator[Callable[[int], tuple[int, Future[None]]]]:
    """Open a door for so many processes; return its port, and when all have come."""
    pool, doors = ThreadPoolExecutor(4), []

    def make(size: int) -> tuple[int, Future[None]]:
        server = listen(HERE, 0)
        made = Rendezvous(server, size)
        doors.append(made)

        def serve() -> None:
            made.wait(20)
            made.open(4711)

        return server.getsockname()[1], pool.submit(serve)

    yield make
    for one in doors:
        one.close()
    pool.shutdown()


def test_each_process_is_told_where_to_go_once_all_are_there(opened: Callable[..., tuple]):
    port, done = opened(4)
    with ThreadPoolExecutor(3) as pool:
        first, second = (
            pool.submit(ask_for_address, HERE, port, 4, number, 20.0) for number in (3, 1)
        )
        time.sleep(0.3)
        assert not (first.done() or second.done() or done.done())
        third = pool.submit(ask_for_address, HERE, port, 4, 2, 20.0)
        assert [one.result(20) for one in (first, second, third)] == [4711] * 3
    done.result(20)
    with pytest.raises(OSError, match="refused"):  # nobody else can come any more
        socket.create_connection((HERE, port), timeout=5)


STRANGERS = {
    "silent": b"",
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "http2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),  # what JAX's own client says first
    "noise": bytes(range(256)) * 64 + b"\n",
    "another JSON": b'{"process": "1", "processes": 2}\n',
    "a list": b"[1, 2]\n",
    "nested": b"[" * 100_000 + b"\n",
}


@pytest.mark.parametrize("says", STRANGERS.values(), ids=STRANGERS)
def test_a_stranger_changes_nothing(
    opened: Callable[..., tuple], says: bytes, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(rendezvous, "READ_SECONDS", 0.5)
    port, done = opened(2)
    with socket.create_connection((HERE, port)) as stranger:
        stranger.sendall(says)
        assert ask_for_address(HERE, port, 2, 1, 20.0) == 4711
        done.result(20)
        stranger.settimeout(20)
        with suppress(ConnectionResetError):  # before all was read that it said
            assert stranger.recv(100) == b""


@pytest.mark.parametrize(
    ("size", "number", "words"),
    [(3, 1, "its process 1 is there already"), (2, 1, "it has 3 processes, not 2")],
)
def test_a_process_of_another_run_is_told_so(
    opened: Callable[..., tuple], size: int, number: int, words: str
):
    """Started twice, or with the port of another run."""
    port, done = opened(3)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(ask_for_address, HERE, port, 3, 1, 20.0)
        time.sleep(0.3)
        with pytest.raises(ConfigError, match=words):
            ask_for_address(HERE, port, size, number, 20.0)
        assert ask_for_address(HERE, port, 3, 2, 20.0) == first.result(20) == 4711
    done.result(20)


def test_a_process_that_was_started_again_is_let_in(opened: Callable[..., tuple]):
    port, done = opened(3)
    with socket.create_connection((HERE, port)) as killed:
        killed.sendall(b'{"process": 1, "processes": 3}\n')
        time.sleep(0.3)
    with ThreadPoolExecutor(1) as pool:
        again = pool.submit(ask_for_address, HERE, port, 3, 1, 20.0)
        assert ask_for_address(HERE, port, 3, 2, 20.0) == again.result(20) == 4711
    done.result(20)


def test_who_does_not_come_is_named():
    with listen(HERE, 0) as server:
        waiting = Rendezvous(server, 4)
        port = server.getsockname()[1]
        with ThreadPoolExecutor(1) as pool:
            caller = pool.submit(ask_for_address, HERE, port, 4, 2, 1.0)
            with pytest.raises(NotMetError, match=r"^1, 3$"):
                waiting.wait(0.8)
            waiting.close()
            with pytest.raises(NotMetError):
                caller.result(20)


def test_what_stands_in_the_way_is_named(free_port: int):
    with pytest.raises(NotMetError, match=NOTHING):
        ask_for_address(HERE, free_port, 2, 1, 0.5)
    with socket.create_server((HERE, 0)) as other:
        threading.Thread(target=lambda: other.accept()[0].close(), daemon=True).start()
        with pytest.raises(NotMetError, match=ANOTHER):
            ask_for_address(HERE, other.getsockname()[1], 2, 1, 0.1)


def test_it_binds_to_what_the_host_is_known_by(monkeypatch: pytest.MonkeyPatch):
    assert bind_host("127.0.0.1", {}) == "127.0.0.1"
    assert bind_host("localhost", {}) in ("127.0.0.1", "::1")
    assert bind_host("192.0.2.1", {}) == EVERYWHERE  # of another host: translated on the way
    assert bind_host("name.invalid", {}) == EVERYWHERE
    assert bind_host("x", {BIND: "10.0.0.1:3"}) == "10.0.0.1"

    def as_debian(*_: object, **__: object) -> list:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.1.1", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", as_debian)
    assert bind_host("myhost", {}) == EVERYWHERE


def test_addresses_as_grpc_writes_them():
    assert grpc_address("10.0.0.1", 7) == "10.0.0.1:7"
    assert grpc_address("::1", 7) == "[::1]:7"
    assert grpc_address(EVERYWHERE, 7) == "[::]:7"
    assert 0 < free_port(HERE) < 1 << 16
    assert 0 < free_port(EVERYWHERE) < 1 << 16
