import threading
from collections.abc import Callable, Iterator
from typing import Any

import grain.python as grain
import numpy as np
import pytest

from chomp.data import is_stuck
from chomp.data.loader import BatchLoader
from chomp.errors import DataError
from chomp.types import Batch, BatchStats, LoadedBatch, RowStats, SourceCount

PATIENCE = 60


class Numbers(grain.DatasetIterator[LoadedBatch]):
    """Batches 1, 2, 3, ...; waits before `held`, fails at `broken`, ends behind `last`."""

    def __init__(self):
        super().__init__()
        self.place = {"at": 0}
        self.held, self.broken, self.last = 10**9, 10**9, 10**9
        self.go_on = threading.Event()
        self.asked: list[int] = []
        self.threads: set[str] = set()
        self.closed = False

    def __next__(self) -> LoadedBatch:
        number = self.place["at"] + 1
        self.asked.append(number)
        self.threads.add(threading.current_thread().name)
        if number == self.held:
            assert self.go_on.wait(PATIENCE)
        if number == self.broken:
            raise DataError(f"batch {number} is broken")
        if number > self.last:
            raise StopIteration
        self.place["at"] = number
        ids = np.full((1, 1, 4), number, np.int32)
        stats = BatchStats((SourceCount(2),), 4, 1, 0, 0, 0, (), number)
        row = RowStats(0, stats)
        return LoadedBatch(Batch(ids, ids, ids, ids > 0), stats, (row,))

    def get_state(self) -> dict[str, Any]:
        return self.place

    def set_state(self, state: dict[str, Any]) -> None:
        self.place = dict(state)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def numbers() -> Iterator[Numbers]:
    made = Numbers()
    yield made
    made.go_on.set()


@pytest.fixture
def loader(numbers: Numbers) -> Iterator[Callable[[int], BatchLoader]]:
    made: list[BatchLoader] = []

    def make(ahead: int) -> BatchLoader:
        made.append(BatchLoader(numbers, ahead))
        return made[-1]

    yield make
    numbers.go_on.set()
    for one in made:
        one.close()


def take(loader: BatchLoader, count: int) -> list[int]:
    return [next(loader).stats.hash for _ in range(count)]


def reach(numbers: Numbers, number: int) -> None:
    """Wait until a batch is asked for."""
    tick = threading.Event()
    for _ in range(PATIENCE * 1000):
        if number in numbers.asked:
            return
        tick.wait(0.001)
    raise AssertionError(f"nobody asked for {number}, only {numbers.asked}")


def test_prepares_so_many_ahead_and_none_before_it_is_started(numbers: Numbers, loader: Any):
    one = loader(3)
    assert numbers.asked == []
    one.start()
    reach(numbers, 3)
    assert take(one, 2) == [1, 2]
    reach(numbers, 5)
    assert numbers.asked == [1, 2, 3, 4, 5]
    assert all(name.startswith("chomp-loader") for name in numbers.threads)


def test_without_any_ahead_each_is_prepared_when_it_is_asked_for(numbers: Numbers, loader: Any):
    one = loader(0)
    one.start()
    assert numbers.asked == []
    assert take(one, 2) == [1, 2]
    assert numbers.asked == [1, 2]


@pytest.mark.parametrize("ahead", [0, 1, 4])
def test_the_state_is_that_of_the_batch_taken(numbers: Numbers, loader: Any, ahead: int):
    one = loader(ahead)
    assert one.get_state() == {"at": 0}
    one.start()
    reach(numbers, ahead) if ahead else None
    assert one.get_state() == {"at": 0}
    for number in (1, 2, 3):
        assert take(one, 1) == [number]
        reach(numbers, number + ahead)
        assert one.get_state() == {"at": number}
    # Nor does the chain change it behind one's back: what was read is a value of its own.
    state = one.get_state()
    take(one, 1)
    assert state == {"at": 3}


def test_goes_to_a_state_and_forgets_what_it_had(numbers: Numbers, loader: Any):
    one = loader(3)
    take(one, 5)
    reach(numbers, 8)
    one.set_state({"at": 2})
    assert one.get_state() == {"at": 2}
    assert take(one, 3) == [3, 4, 5]


def test_a_wait_ends_when_there_is_a_batch_or_the_time_is_over(numbers: Numbers, loader: Any):
    numbers.held = 2
    one = loader(1)
    assert one.wait(PATIENCE)
    assert take(one, 1) == [1]
    reach(numbers, 2)
    assert not one.wait(0.01)
    numbers.go_on.set()
    assert one.wait(PATIENCE)
    assert take(one, 1) == [2]


def test_an_error_comes_behind_the_batches_before_it_and_stays(numbers: Numbers, loader: Any):
    numbers.broken = 4
    one = loader(8)
    one.start()
    reach(numbers, 4)
    assert take(one, 3) == [1, 2, 3]
    for _ in range(2):
        assert one.wait(PATIENCE)
        with pytest.raises(DataError, match="batch 4 is broken"):
            next(one)
        assert one.get_state() == {"at": 3}
    # A chain that has failed isn't asked again, until it is set to a place.
    assert numbers.asked == [1, 2, 3, 4]
    numbers.broken = 10**9
    one.set_state(one.get_state())
    assert take(one, 1) == [4]


def test_the_end_comes_behind_the_last_batch_and_stays(numbers: Numbers, loader: Any):
    numbers.last = 2
    one = loader(8)
    assert [drawn.stats.hash for drawn in one] == [1, 2]
    assert list(one) == []
    assert one.get_state() == {"at": 2}


@pytest.mark.parametrize("ahead", [0, 1, 4])
def test_peeking_takes_nothing(numbers: Numbers, loader: Any, ahead: int):
    numbers.last = 2
    one = loader(ahead)
    for number in (1, 2):
        for _ in range(2):
            assert one.wait(PATIENCE)
            [row] = one.peek()
            assert row.stats.hash == number
            assert one.get_state() == {"at": number - 1}
        assert take(one, 1) == [number]
    for _ in range(2):
        assert one.wait(PATIENCE)
        assert one.peek() is None
    with pytest.raises(StopIteration):
        next(one)
    one.set_state({"at": 1})
    assert one.peek()[0].stats.hash == 2


def test_peeking_shows_an_error_and_leaves_it_there(numbers: Numbers, loader: Any):
    numbers.broken = 2
    one = loader(1)
    take(one, 1)
    for _ in range(2):
        assert one.wait(PATIENCE)
        with pytest.raises(DataError, match="batch 2 is broken"):
            one.peek()
    assert one.get_state() == {"at": 1}
    with pytest.raises(DataError, match="batch 2 is broken"):
        next(one)


@pytest.mark.parametrize("broken", [1, 2])
def test_an_error_of_the_first_batch_is_known_without_asking(numbers: Numbers, loader: Any, broken):
    numbers.broken = numbers.held = broken
    batches = loader(2)
    batches.check()
    batches.start()
    batches.check()  # not known yet
    numbers.go_on.set()
    assert batches.wait(PATIENCE)
    if broken == 2:
        batches.check()
        return
    for _ in range(2):
        with pytest.raises(DataError, match="batch 1 is broken"):
            batches.check()


def test_batches_are_placed_in_the_thread(numbers: Numbers, loader: Any):
    names = []

    def place(batch: Batch) -> Batch:
        names.append(threading.current_thread().name)
        return batch._replace(labels=batch.labels + 1)

    one = loader(1)
    one.place = place
    batch = next(one).batch
    assert int(batch.labels[0, 0, 0]) == int(batch.input_ids[0, 0, 0]) + 1
    assert names[0].startswith("chomp-loader")


def test_an_error_of_placing_is_handed_over_too(loader: Any):
    def fail(batch: Batch) -> Batch:
        raise ValueError("no room on the device")

    one = loader(1)
    one.place = fail
    with pytest.raises(ValueError, match="no room on the device"):
        next(one)


def test_closing_ends_the_thread_and_the_chain(numbers: Numbers, loader: Any):
    before = threading.enumerate()
    one = loader(2)
    take(one, 1)
    one.close()
    one.close()
    assert numbers.closed
    assert set(threading.enumerate()) <= set(before)
    with pytest.raises(ValueError, match="closed"):
        next(one)


def test_closing_leaves_a_read_that_hangs(
    numbers: Numbers, loader: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("chomp.data.loader.CLOSING_SECONDS", 0.05)
    numbers.held = 1
    before = threading.enumerate()
    one = loader(2)
    one.start()
    reach(numbers, 1)
    one.close()
    [left] = set(threading.enumerate()) - set(before)
    assert is_stuck()
    assert numbers.asked == [1]
    numbers.go_on.set()
    left.join(PATIENCE)
    assert not left.is_alive()
