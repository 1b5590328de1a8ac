import io
import random

import pytest

from chomp.data.sources.retrying_file import RetryingFile
from chomp.errors import DataError

DATA = bytes(range(256)) * 40


class Breaking(io.BytesIO):
    """Fails in a share of its reads."""

    def __init__(self, rng: random.Random, share: float, data: bytes = DATA):
        super().__init__(data)
        self.rng, self.share = rng, share

    def read(self, count=-1):
        if self.rng.random() < self.share:
            raise ConnectionResetError("broke off")
        return super().read(count)


def test_every_byte_comes_once_in_order_whatever_breaks(reading):
    rng = random.Random(0)
    opened = []

    def open_file():
        opened.append(1)
        return Breaking(rng, 0.5)

    raw = RetryingFile(open_file, "x", (OSError,), reading._replace(max_retries=50))
    file = io.BufferedReader(raw, 64)
    assert file.read() == DATA
    for _ in range(200):
        at, count = rng.randrange(len(DATA)), rng.randrange(300)
        file.seek(at)
        assert file.read(count) == DATA[at : at + count]
    assert file.seek(-5, io.SEEK_END) == len(DATA) - 5
    assert file.read() == DATA[-5:]
    assert len(opened) > 50
    file.close()


def test_the_count_of_retries_starts_anew_after_a_success(reading):
    rng = random.Random(1)
    raw = RetryingFile(lambda: Breaking(rng, 0.9), "x", (OSError,), reading)
    with pytest.raises(DataError, match=r"x, byte \d+: reading failed, and again in 2 retries"):
        io.BufferedReader(raw, 64).read()


def test_a_file_that_changes_its_length_is_an_error(reading):
    rng = random.Random(0)
    files = iter([Breaking(rng, 1.0), Breaking(rng, 0.0, DATA + b"more")])
    raw = RetryingFile(lambda: next(files), "x", (OSError,), reading)
    with pytest.raises(DataError, match="x: its length changed from 10240 to 10244 bytes"):
        raw.read(5)


def test_an_early_end_is_taken_for_a_broken_connection(reading):
    class Short(io.BytesIO):
        def read(self, count=-1):
            return b"" if self.tell() >= 100 else super().read(min(count, 100 - self.tell()))

    raw = RetryingFile(lambda: Short(DATA), "x", (OSError,), reading)
    with pytest.raises(DataError, match="no data at byte 100 of 10240"):
        io.BufferedReader(raw, 64).read()


def test_other_errors_pass(reading):
    def fail():
        raise ValueError("a mistake")

    with pytest.raises(ValueError, match="a mistake"):
        RetryingFile(fail, "x", (OSError,), reading).read(1)
