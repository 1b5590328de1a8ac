import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chomp.errors import DataError
from chomp.run.ledger import Ledger
from chomp.run.ledger_search import find_entry
from chomp.system.console import Console
from chomp.tracking import keep_rows_up_to
from chomp.types import BatchStats, SourceCount

DATA = {"backend": "builtin", "files": 3, "digest": "ab"}


def stats(*keys: tuple[int, int], value: int = 0xAB) -> BatchStats:
    return BatchStats(
        (SourceCount(5),), 8, 1, 0, 0, 0, tuple(shard << 32 | row for shard, row in keys), value
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.jsonl"


@pytest.fixture
def write(path: Path, no_lines: Console) -> Any:
    """Write steps as a run does that is started after step `start`."""

    def write(start: int, *steps: int, data: dict[str, Any] = DATA, value: int = 0xAB) -> None:
        keep_rows_up_to(start, path)
        ledger = Ledger(path, data, start, no_lines)
        for step in steps:
            ledger.record(step, step + 100, stats((step, 0), value=value))
        ledger.close()

    return write


def test_a_line_holds_a_step_and_its_documents_by_shard(
    path: Path, read_rows: Any, no_lines: Console
):
    ledger = Ledger(path, DATA, 0, no_lines)
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


@given(
    steps=st.lists(st.integers(1, 12), unique=True, min_size=1).map(sorted),
    corpora=st.lists(st.integers(0, 12), max_size=5),
    chunk=st.sampled_from([16, 100, 1 << 16]),
)
@settings(max_examples=60, deadline=None)
def test_every_step_is_found_with_its_corpus(
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[int],
    corpora: list[int],
    chunk: int,
    no_lines: Console,
):
    path = tmp_path_factory.mktemp("ledger") / "ledger.jsonl"
    corpus = 0
    expected = {}
    for index, step in enumerate(steps):
        corpus += index in corpora
        ledger = Ledger(path, {"number": corpus}, step - 1, no_lines)
        ledger.record(step, step, stats(*[(step, row) for row in range(step % 7)]))
        ledger.close()
        expected[step] = {"number": corpus}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("chomp.run.ledger_search.CHUNK", chunk)
        for step in range(14):
            found = find_entry(path, step)
            assert (found.first, found.last) == (steps[0], steps[-1])
            assert (found.entry and found.entry.data) == expected.get(step)
            assert (found.entry and found.entry.step) == (step if step in expected else None)


def test_a_long_one_is_searched_at_once(path: Path):
    head = '{"step":0,"data":{"digest":"x"}}\n'
    line = '{"step":%d,"batch":%d,"hash":"00","tokens":1,"targets":1,"docs":{"0":[%d]}}\n'
    path.write_text(head + "".join(line % (step, step, step) for step in range(1, 300_001)))
    start = time.process_time()
    for step in range(1, 300_000, 15_000):
        entry = find_entry(path, step).entry
        assert entry is not None
        assert (entry.step, entry.docs) == (step, [(0, step)])
    assert time.process_time() - start < 5  # of which most is for the corpus, far before


@pytest.mark.parametrize("line", ["[" * 200_000, '{"docs":7}', '{"docs":{"x":[1]}}', "{}"])
def test_a_broken_line_is_said(path: Path, line: str):
    path.write_text('{"step":4,"batch":' + line + "}\n")
    with pytest.raises(DataError, match=r"the line of step 4 is broken"):
        find_entry(path, 4)
