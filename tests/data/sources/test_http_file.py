import io
import json
import random
import threading
import time

import pytest
from fake_hub import FAULTS, FakeHub

from chomp.data.sources import http_file, read_policy
from chomp.data.sources.http_file import HttpFile
from chomp.data.sources.hub import hub_errors
from chomp.data.sources.huggingface import RemoteShard
from chomp.data.sources.read_policy import RETRIES
from chomp.data.sources.retrying_file import RetryingFile
from chomp.errors import DataError, NetworkError

DATA = random.Random(0).randbytes(100_000)


@pytest.fixture
def hub(tmp_path):
    (tmp_path / "file").write_bytes(DATA)
    (tmp_path / "empty").write_bytes(b"")
    with FakeHub(tmp_path, 0.0) as hub:
        yield hub


@pytest.fixture(autouse=True)
def small_ranges(monkeypatch):
    monkeypatch.setattr(http_file, "RANGE_BYTES", 4096)


@pytest.fixture
def impatient(reading):
    return reading._replace(max_retries=12, retry_delay=0.002, timeout=0.2)


@pytest.fixture
def opened(hub, impatient):
    """Open a file of the hub as streams do."""

    def open_(name="file", reading=impatient, versions=None) -> io.BufferedReader:
        url = f"{hub.url}/datasets/me/data/resolve/main/{name}"
        file = HttpFile(name, lambda: (url, {}), {} if versions is None else versions, reading)
        return io.BufferedReader(RetryingFile(lambda: file, name, hub_errors(), reading), 4096)

    return open_


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_got_over_and_counted(hub, opened, fault):
    hub.kinds, hub.fault_share, hub.refused_seconds = (fault,), 0.3, 0.05
    before = RETRIES.count
    assert opened().read() == DATA
    assert len(hub.faults) > 3
    assert RETRIES.count - before >= len(hub.faults)


def test_any_place_can_be_read(opened):
    file, rng = opened(), random.Random(1)
    assert file.seek(-7, io.SEEK_END) == len(DATA) - 7
    assert file.read() == DATA[-7:]
    for _ in range(50):
        at, count = rng.randrange(len(DATA) + 10), rng.randrange(9000)
        file.seek(at)
        assert file.read(count) == DATA[at : at + count]
    assert opened("empty").read() == b""


def test_a_connection_that_always_breaks_off_gets_on_all_the_same(hub, opened):
    hub.kinds, hub.fault_share = ("cut",), 1.0
    assert opened().read(20_000) == DATA[:20_000]
    # Half of 4096 bytes, of the other half, ...: never a byte that had come twice.
    assert hub.requests < 20_000 / 4096 * 13


@pytest.mark.parametrize("fault", ["mute", "500", "whole"])
def test_giving_up_names_the_place_and_is_the_network_s_fault(hub, opened, impatient, fault):
    file = opened(reading=impatient._replace(max_retries=2))
    assert file.read(8192) == DATA[:8192]
    hub.kinds, hub.fault_share = (fault,), 1.0
    begin = time.monotonic()
    with pytest.raises(
        NetworkError, match=r"file, byte \d+: reading failed, and again in 2 retries"
    ) as caught:
        while file.read(1024):
            pass
    assert time.monotonic() - begin < 12
    assert caught.value.exit_code == 1
    hub.fault_share = 0.0


def test_a_trickle_is_not_waited_for(hub, opened, impatient, monkeypatch):
    """Bytes keep coming, so the timeout between bytes never runs out."""
    monkeypatch.setattr(http_file, "TIMEOUTS_PER_RANGE", 2)
    hub.kinds, hub.fault_share = ("trickle",), 1.0
    begin = time.monotonic()
    assert opened().read(5)
    assert time.monotonic() - begin < 1.5


def test_a_file_that_changes_is_an_error_at_once(hub, opened, impatient):
    versions: dict = {}
    before = RETRIES.count
    patient = impatient._replace(timeout=30.0)
    file = opened(reading=patient, versions=versions)
    assert file.read(5000)
    hub.tag = "c" * 40
    with pytest.raises(DataError, match="file: its content changed while it was read") as caught:
        file.read()
    assert caught.value.exit_code == 2
    # In the next epoch too.
    with pytest.raises(DataError, match="file: its content changed"):
        opened(reading=patient, versions=versions).read()
    hub.tag = "b" * 40
    (hub.folder / "file").write_bytes(DATA + b"more")
    with pytest.raises(DataError, match="file: its length changed from 100000 to 100004 bytes"):
        opened(reading=patient, versions=versions).read()
    assert RETRIES.count == before


def test_a_server_that_asks_for_time_gets_it_within_reason(hub, opened, impatient, monkeypatch):
    hub.kinds, hub.headers = ("429", "503"), {"Retry-After": "1"}

    def seconds():
        hub.fault_share, begin = 1.0, time.monotonic()
        threading.Timer(0.5, lambda: setattr(hub, "fault_share", 0.0)).start()
        assert opened().read(10) == DATA[:10]
        return time.monotonic() - begin

    assert 1 <= seconds() < 2
    monkeypatch.setattr(read_policy, "LONGEST_ASKED_DELAY", 0.6)
    hub.headers = {"Retry-After": "86400"}
    assert 0.6 <= seconds() < 2
    hub.headers = {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}
    assert seconds() < 2


@pytest.mark.parametrize("fault", ["503", "mute"])
def test_closing_ends_the_wait(hub, opened, impatient, fault):
    hub.kinds, hub.fault_share, hub.headers = (fault,), 1.0, {"Retry-After": "60"}
    file = opened(reading=impatient._replace(max_retries=100, retry_delay=60.0))
    threading.Timer(0.6, impatient.closing.set).start()
    begin = time.monotonic()
    with pytest.raises(NetworkError):
        file.read(10)
    assert time.monotonic() - begin < 2


def test_what_a_closed_stream_still_receives_is_dropped(hub, opened, impatient):
    impatient.closing.set()
    with pytest.raises(NetworkError, match="the data was closed"):
        opened().read(10)


def test_a_plain_web_server_s_shards(hub, impatient):
    lines = b"".join(json.dumps({"text": f"{i}" * 100}).encode() + b"\n" for i in range(500))
    (hub.folder / "x.jsonl").write_bytes(lines)
    hub.fault_share = 0.3
    url = f"{hub.url}/datasets/me/data/resolve/main/x.jsonl"
    shard = RemoteShard(url, impatient, hub_errors())
    assert [row.text for _, row in shard.rows(17)] == [f"{i}" * 100 for i in range(17, 500)]
