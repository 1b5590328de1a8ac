import itertools
import json
import threading

from hypothesis import given, settings
from hypothesis import strategies as st

from chomp.data.shuffle import WindowShuffle
from chomp.data.sources.documents import DocumentStream
from chomp.data.sources.local import TextShard
from chomp.data.sources.read_policy import ReadPolicy


def shuffled(count, size, reading, *, repeat=True, seed=0):
    texts = [str(i) for i in range(count)]
    stream = DocumentStream([TextShard(texts)], reading, repeat=repeat, seed=None)
    return WindowShuffle(stream, size=size, seed=seed).__iter__()


def take(iterator, count):
    return [document.key for document in itertools.islice(iterator, count)]


def test_every_document_comes_once_before_any_comes_again(reading):
    for size in (1, 7, 50, 1000):
        keys = take(shuffled(50, size, reading), 200)
        for epoch in range(4):
            assert sorted(keys[epoch * 50 : epoch * 50 + 50]) == list(range(50))
    assert take(shuffled(50, 1000, reading), 50) != take(shuffled(50, 1000, reading, seed=1), 50)


def test_windows_bound_how_far_a_document_moves(reading):
    keys = take(shuffled(100, 10, reading, repeat=False), 1000)
    assert [sorted(keys[i : i + 10]) for i in range(0, 100, 10)] == [
        list(range(i, i + 10)) for i in range(0, 100, 10)
    ]
    assert keys != sorted(keys)


def test_epochs_differ(reading):
    keys = take(shuffled(50, 1000, reading), 100)
    assert keys[:50] != keys[50:]


@given(st.integers(1, 30), st.integers(1, 40), st.lists(st.integers(0, 50), max_size=5))
@settings(max_examples=100, deadline=None)
def test_goes_on_exactly_as_often_as_one_likes(count, size, stops):
    reading = ReadPolicy("text", False, 0, 0.0, 5.0, threading.Event())
    expected = take(shuffled(count, size, reading), sum(stops) + 20)
    got, iterator = [], shuffled(count, size, reading)
    for stop in [*stops, 20]:
        got += take(iterator, stop)
        state = json.loads(json.dumps(iterator.get_state()))
        iterator = shuffled(count, size, reading)
        iterator.set_state(state)
        assert iterator.get_state() == state
    assert got == expected
