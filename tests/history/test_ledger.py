import json
from pathlib import Path
from typing import Any

import pytest

from chomp.history.ledger import Ledger, find_entry
from chomp.tracking import keep_rows_up_to
from chomp.types import BatchStats

DATA = {"backend": "builtin", "files": 3, "digest": "ab"}


def stats(*keys: tuple[int, int], value: int = 0xAB) -> BatchStats:
    return BatchStats(5, 8, 1, 0, 0, 0, tuple(shard << 32 | row for shard, row in keys), value)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.jsonl"


@pytest.fixture
def write(path: Path) -> Any:
    """Write steps as a run does that is started after step `start`."""

    def write(start: int, *steps: int, data: dict[str, Any] = DATA, value: int = 0xAB) -> None:
        keep_rows_up_to(start, path)
        ledger = Ledger(path, data, start, pytest.fail)
        for step in steps:
            ledger.record(step, step + 100, stats((step, 0), value=value))
        ledger.close()

    return write


def test_a_line_holds_a_step_and_its_documents_by_shard(path: Path, read_rows: Any):
    ledger = Ledger(path, DATA, 0, pytest.fail)
    documents = [(7, 2**32 - 1), (0, 5), (7, 0), (2**30, 1)]
    ledger.record(1, 3, stats(*documents, value=0x1F))
    ledger.close()
    head, line = read_rows(path)
    assert head == {"step": 0, "data": DATA}
    assert line == {
        "step": 1,
        "batch": 3,
        "hash": "000000000000001f",
        "tokens": 8,
        "targets": 5,
        "docs": {"7": [2**32 - 1, 0], "0": [5], str(2**30): [1]},
    }
    entry = find_entry(path, 1).entry
    assert entry is not None
    assert sorted(entry.docs) == sorted(documents)
    assert (entry.step, entry.batch, entry.hash) == (1, 3, "000000000000001f")
    assert (entry.tokens, entry.targets, entry.data) == (8, 5, DATA)


def test_a_resume_replaces_what_is_behind_it(write: Any, path: Path, read_rows: Any):
    write(0, 1, 2, 3, 4, value=1)
    write(2, 3, 4, 5, value=2)
    lines = read_rows(path)
    assert [(line["step"], line.get("hash", "head")[-1]) for line in lines] == [
        *((0, "d"), (1, "1"), (2, "1")),
        *((3, "2"), (4, "2"), (5, "2")),
    ]
    write(0, 1)
    assert [line["step"] for line in read_rows(path)] == [0, 1]


def test_another_corpus_is_noted_where_it_begins(write: Any, path: Path):
    other = DATA | {"digest": "cd"}
    write(0, 1, 2, 3)
    write(2, 3, data=other)
    write(3, 4, data=other)
    assert path.read_text().count('"data"') == 2
    for step, data in ((1, DATA), (2, DATA), (3, other), (4, other)):
        entry = find_entry(path, step).entry
        assert entry is not None
        assert entry.data == data
    write(1, 2)
    assert path.read_text().count('"data"') == 1


def test_steps_that_are_not_there(write: Any, path: Path):
    write(0)
    assert find_entry(path, 1) == find_entry(path, None) == (None, None, None)
    write(0, 5, 10, 15)
    assert find_entry(path, 7) == (None, 5, 15)
    assert find_entry(path, 16) == (None, 5, 15)
    newest = find_entry(path, None).entry
    assert newest is not None
    assert newest.step == 15


def test_a_run_that_went_back_took_the_steps_behind_back(write: Any, path: Path):
    write(0, 1, 2, 3, 4, 2, value=1)
    assert find_entry(path, 4).entry is None
    assert find_entry(path, 2).last == 2
    again = find_entry(path, 3)
    assert (again.entry, again.first, again.last) == (None, 1, 2)


def test_a_line_being_written_is_not_read_yet(write: Any, path: Path):
    write(0, 1, 2)
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    assert find_entry(path, None).last == 1
    path.write_bytes(whole[:-1])
    assert find_entry(path, None).last == 1
    write(2, 3)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [0, 1, 2, 3]
