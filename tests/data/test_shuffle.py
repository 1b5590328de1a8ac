import itertools
import json
import threading

from hypothesis import given, settings
from hypothesis import strategies as st

from chomp.data.shuffle import Window, WindowShuffle
from chomp.data.sources.documents import DocumentStream
from chomp.data.sources.local import TextShard
from chomp.data.sources.read_policy import ReadPolicy


def shuffled(count, size, reading, *, repeat=True, seed=0, most_bytes=None, texts=None):
    texts = texts or [str(i) for i in range(count)]
    stream = DocumentStream([TextShard(texts)], reading, repeat=repeat, seed=None)
    return WindowShuffle(stream, window=Window(size, most_bytes), seed=seed).__iter__()


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


@given(
    texts=st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=40),
    most_bytes=st.integers(1, 100),
    size=st.integers(1, 10),
)
@settings(max_examples=100, deadline=None)
def test_long_documents_fill_a_window_before_it_has_all_its_documents(texts, most_bytes, size):
    reading = ReadPolicy("text", False, 0, 0.0, 5.0, threading.Event())
    iterator = shuffled(0, size, reading, most_bytes=most_bytes, texts=texts, repeat=False)
    drawn = [document.text for document in iterator]
    while texts:
        held = list(itertools.accumulate(len(text.encode()) for text in texts))
        count = next((i + 1 for i, total in enumerate(held) if total >= most_bytes), len(texts))
        count = min(count, size)
        assert sorted(drawn[:count]) == sorted(texts[:count])
        texts, drawn = texts[count:], drawn[count:]
    assert drawn == []


def test_epochs_differ(reading):
    keys = take(shuffled(50, 1000, reading), 100)
    assert keys[:50] != keys[50:]


@given(
    *(st.integers(1, 30), st.integers(1, 40), st.none() | st.integers(1, 20)),
    st.lists(st.integers(0, 50), max_size=5),
)
@settings(max_examples=100, deadline=None)
def test_goes_on_exactly_as_often_as_one_likes(count, size, most_bytes, stops):
    reading = ReadPolicy("text", False, 0, 0.0, 5.0, threading.Event())

    def start():
        return shuffled(count, size, reading, most_bytes=most_bytes)

    expected = take(start(), sum(stops) + 20)
    got, iterator = [], start()
    for stop in [*stops, 20]:
        got += take(iterator, stop)
        state = json.loads(json.dumps(iterator.get_state()))
        iterator = start()
        iterator.set_state(state)
        assert iterator.get_state() == state
    assert got == expected
