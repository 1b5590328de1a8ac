import json
import logging
import threading
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chomp.data.holdout import HoldOut
from chomp.data.sources.documents import (
    BrokenFileError,
    Document,
    DocumentStream,
    Row,
    document_key,
)
from chomp.data.sources.read_policy import ReadPolicy
from chomp.errors import DataError


class ListShard(NamedTuple):
    """Rows from a list; an exception in it is raised there."""

    name: str
    items: list
    transient: tuple[type[BaseException], ...] = ()

    def rows(self, start: int) -> Iterator[tuple[int, Row]]:
        for number, item in enumerate(self.items[start:], start):
            if isinstance(item, Exception):
                raise item
            yield number, item if isinstance(item, Row) else Row(item)


def stream(items, reading, *, repeat=False, seed=None):
    shards = [ListShard(f"shard{i}", list(part)) for i, part in enumerate(items)]
    return DocumentStream(shards, reading, repeat=repeat, seed=seed)


texts = st.lists(st.lists(st.sampled_from(["a", "b", "", None]), max_size=6), min_size=1)


@given(texts, st.integers(0, 25), st.one_of(st.none(), st.integers(0, 5)))
@settings(max_examples=100, deadline=None)
def test_every_text_once_an_epoch_and_exactly_on_from_any_document(items, stop, seed):
    reading = ReadPolicy("text", False, 0, 0.0, 5.0, threading.Event())
    good = [
        (document_key(i, j), text)
        for i, part in enumerate(items)
        for j, text in enumerate(part)
        if text
    ]
    bad = sum(not text for part in items for text in part)
    if not good:
        with pytest.raises(DataError, match="no text"):
            list(stream(items, reading, repeat=True, seed=seed))
        return
    found = list(stream(items, reading, seed=seed))
    assert sorted((d.key, d.text) for d in found if d.text) == good
    assert sum(d.skipped for d in found) == bad
    iterator = stream(items, reading, repeat=True, seed=seed).__iter__()
    for _ in range(stop):
        next(iterator)
    again = stream(items, reading, repeat=True, seed=seed).__iter__()
    again.set_state(json.loads(json.dumps(iterator.get_state())))
    assert [next(again) for _ in range(30)] == [next(iterator) for _ in range(30)]


def test_shards_come_in_another_order_each_epoch_and_rows_in_their_own(reading):
    items = [[f"{i}{j}" for j in range(3)] for i in range(20)]
    iterator = stream(items, reading, repeat=True, seed=1).__iter__()
    epochs = [[next(iterator).text for _ in range(60)] for _ in range(3)]
    assert epochs[0] != epochs[1] != epochs[2]
    for epoch in epochs:
        assert sorted(epoch) == sorted(text for part in items for text in part)
        assert all(epoch[i : i + 3] == sorted(epoch[i : i + 3]) for i in range(0, 60, 3))


def test_faults_stop_or_are_skipped_and_counted(reading, caplog):
    items = [["a", Row(fault="shard0, line 2: broken"), None, "b"]]
    iterator = stream(items, reading).__iter__()
    assert next(iterator).text == "a"
    with pytest.raises(DataError, match=r"shard0, line 2: broken \(data.on_error: skip leaves"):
        next(iterator)
    skipping = reading._replace(skip_broken=True)
    with caplog.at_level(logging.WARNING):
        assert list(stream(items, skipping)) == [Document("a", 0), Document("b", 3, skipped=2)]
    assert "shard0, line 2: broken" in caplog.text


def test_a_broken_file_loses_its_rest_and_nothing_else(reading):
    items = [["a", BrokenFileError("shard0: torn"), "never"], ["b"]]
    with pytest.raises(DataError, match="shard0: torn"):
        list(stream(items, reading))
    found = list(stream(items, reading._replace(skip_broken=True)))
    assert [(d.text, d.skipped) for d in found] == [("a", 0), ("b", 1)]


def test_local_errors_are_not_retried(reading):
    with pytest.raises(DataError, match=r"shard0: can't be read: .*gone"):
        list(stream([[FileNotFoundError("gone")]], reading))


def test_a_wrong_key_lists_those_there_are(reading):
    rows = [Row(columns=("id", "body"))] * 5
    with pytest.raises(DataError, match=r"data\.text_key: no row has 'text'; .*: id, body"):
        list(stream([rows], reading))
    endless = ListShard("endless", rows * 100_000)
    with pytest.raises(DataError, match="no row has 'text'"):
        next(DocumentStream([endless], reading, repeat=True, seed=None).__iter__())
    found = list(stream([[*rows, "a"]], reading))
    assert [(d.text, d.skipped) for d in found] == [("a", 5)]


def test_retries_wait_longer_each_time(reading, monkeypatch):
    waits = []
    closing = threading.Event()
    monkeypatch.setattr(closing, "wait", waits.append)
    shard = ListShard("remote", ["a", ConnectionError("x")], (ConnectionError,))
    options = reading._replace(max_retries=4, retry_delay=0.5, closing=closing)
    iterator = DocumentStream([shard], options, repeat=False, seed=None).__iter__()
    assert next(iterator).text == "a"
    with pytest.raises(DataError, match=r"remote, row 1: reading failed, and again in 4 retries"):
        next(iterator)
    assert waits == [0.5, 1.0, 2.0, 4.0]


def test_held_out_documents_leave_their_counts_behind(reading):
    items = [["a", None, "b", "c", None, None, "d", None]]
    held = HoldOut(stream(items, reading), frozenset({2, 3}))
    assert [(d.text, d.skipped) for d in held] == [("a", 0), ("", 1), ("d", 2), ("", 1)]
