import json
import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import xxhash
from rich.cells import cell_len

from chomp.commands.trace import Document, Trace, read_documents, trace, trace_lines
from chomp.config import config_from_mapping
from chomp.data import open_whole_corpus
from chomp.data.sources.local import find_files
from chomp.data.sources.read_policy import ReadPolicy
from chomp.errors import DataError, ResumeError
from chomp.trainer.components import build_components

pytestmark = pytest.mark.usefixtures("share_programs")

READING = ReadPolicy("text", False, 0, 0.0, 5.0, threading.Event())


@pytest.fixture
def run(chomp: Any, config_file: Any, tmp_path: Path) -> Callable[..., Path]:
    """Train the dummy in `tmp_path/run`; with `resume` go on with it."""

    def run(*args: str, resume: str = "", **sections: Any) -> Path:
        more = [*(("--resume", resume) if resume else ()), *args]
        done = chomp("train", config_file(**sections), "--run-dir", tmp_path / "run", *more)
        assert done.code == 0, done.err
        return tmp_path / "run"

    return run


@pytest.fixture
def own(corpus: Path, tmp_path: Path) -> Path:
    """The corpus as a file that a test may change."""
    path = tmp_path / "own.jsonl"
    path.write_bytes(corpus.read_bytes())
    return path


def reopened(run: Path):
    values = json.loads((run / "config_resolved.json").read_text())
    values.pop("derived")
    return build_components(config_from_mapping(values), run / "tokenizer")


def of_documents(trace: Trace) -> set[tuple[str, int, str | None]]:
    return {(document.source, document.row, document.text) for document in trace.documents}


@pytest.mark.parametrize("mode", ["sequential", "bin"])
def test_hashes_and_documents_are_those_of_the_pipeline_opened_again(
    run: Any, texts: list[str], corpus: Path, read_rows: Any, mode: str
):
    data = {"packing_mode": mode, "packing_buffer_docs": 8}
    folder = run(train={"steps": 12}, data=data)
    setup = reopened(folder)
    hashes = []
    for step in range(1, 13):
        batch, stats, _ = next(setup.data.train)
        batch = jax.device_get(batch)
        rows = zip(*(array.reshape(4, 64) for array in batch[:3]), strict=True)
        of_rows = [xxhash.xxh3_64_intdigest(b"".join(a.tobytes() for a in row)) for row in rows]
        whole = b"".join(struct.pack("<QQ", number, of) for number, of in enumerate(of_rows))
        hashes.append(xxhash.xxh3_64_hexdigest(whole))
        found = trace(folder, step)
        assert (found.step, found.batch, found.hash) == (step, step, hashes[-1])
        assert (found.tokens, found.targets) == (stats.tokens, stats.targets)
        places = [setup.data.place(key) for key in stats.keys]
        assert of_documents(found) == {(str(corpus), row, texts[row][:200]) for _, row in places}
        # What the model read is a part of these documents.
        for ids, segments in zip(*(a.reshape(4, 64) for a in batch[::2]), strict=True):
            for segment in range(1, segments.max() + 1):
                piece = setup.tokenizer.decode(ids[segments == segment].tolist())
                assert any(piece.strip("\ufffd") in texts[row] for _, row in places)
    setup.data.close()
    assert len(set(hashes)) == 12
    assert [row["batch_hash"] for row in read_rows(folder)] == hashes
    assert [line.get("hash") for line in read_rows(folder / "ledger.jsonl")] == [None, *hashes]


def test_after_kill_9_and_resume_each_step_is_there_once_with_the_same_hash(
    run: Any, start_chomp: Any, config_file: Any, tmp_path: Path, read_rows: Any
):
    sections: Any = {"train": {"steps": 30, "eval_every": 1}, "checkpoint": {"save_every": 7}}
    folder, killed = run(**sections), tmp_path / "killed"
    process = start_chomp("train", config_file(**sections), "--run-dir", killed)
    ledger = killed / "ledger.jsonl"
    while process.poll() is None and not (
        ledger.exists() and len(ledger.read_bytes().splitlines()) > 10
    ):
        time.sleep(0.002)
    process.kill()
    process.communicate()
    assert process.returncode == -9
    assert start_chomp("train", "--run-dir", killed, "--resume", "latest").wait() == 0
    lines = read_rows(ledger)
    assert [line["step"] for line in lines] == list(range(31))
    assert lines == read_rows(folder / "ledger.jsonl")
    assert len(read_rows(killed / "ledger.replaced.jsonl")) >= 1


def parquet(folder: Path, texts: list[str]) -> dict[str, Any]:
    pq.write_table(pa.table({"text": texts}), folder / "a.parquet", row_group_size=20)
    return {"backend": "files", "files": [str(folder / "*.parquet")]}


def whole_files(folder: Path, texts: list[str]) -> dict[str, Any]:
    for number, text in enumerate(texts):
        (folder / f"{number:03}.txt").write_text(text, "utf-8")
    return {"backend": "files", "files": [str(folder / "*.txt")]}


def given(folder: Path, texts: list[str]) -> dict[str, Any]:
    return {"backend": "local_text", "local_text": texts}


def library(folder: Path, texts: list[str]) -> dict[str, Any]:
    return {"backend": "builtin"}


def dataset(folder: Path, texts: list[str]) -> dict[str, Any]:
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    (folder / "train.jsonl").write_text(lines)
    return {"backend": "hf", "hf_dataset": str(folder), "hf_name": None}


def table(folder: Path, texts: list[str]) -> dict[str, Any]:
    """A format that only `datasets` reads."""
    pa.csv.write_csv(pa.table({"text": texts}), folder / "train.csv")
    return {"backend": "hf", "hf_dataset": str(folder), "hf_name": None}


@pytest.mark.parametrize("make", [parquet, whole_files, given, library, dataset, table])
def test_every_kind_of_corpus(run: Any, texts: list[str], tmp_path: Path, make: Any):
    (tmp_path / "corpus").mkdir()
    data = make(tmp_path / "corpus", texts) | {"packing_mode": "bin", "packing_buffer_docs": 8}
    folder = run(data=data)
    setup = reopened(folder)
    for step in range(1, 5):
        keys = next(setup.data.train).stats.keys
        shards = open_whole_corpus(setup.config.data, READING).shards
        expected = set()
        for key in keys:
            shard, row = divmod(key, 1 << 32)
            text = next(shards[shard].rows(row))[1].text
            assert text is not None
            assert make is library or text in texts
            expected.add((*setup.data.place(key), text[:200]))
        assert of_documents(trace(folder, step)) == expected
        assert len(expected) == len(keys) > 0
    setup.data.close()


def test_the_command_shows_a_line_for_each_document(chomp: Any, run: Any, corpus: Path):
    folder = run(data={"packing_mode": "bin", "packing_buffer_docs": 8})
    done = chomp("trace", folder)
    assert done.code == 0, done.err
    found = trace(folder, 4)
    head, *lines = done.out.splitlines()
    assert head.startswith(f"step 4, batch 4, hash {found.hash}: 256 tokens, ")
    assert len(lines) == len(found.documents) > 1
    for line, document in zip(lines, found.documents, strict=True):
        assert f"texts.jsonl, row {document.row} " in line
        assert json.dumps(document.text)[1:10] in line
    as_json = json.loads(chomp("trace", folder, "--step", 4, "--json").out)
    assert as_json == json.loads(found.as_json())
    assert as_json["documents"][0]["source"] == str(corpus)


def test_it_needs_no_device(run: Any):
    """A GPU that trains has no memory to spare."""
    script = "from chomp.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script, "trace", run()],
        env={**os.environ, "JAX_PLATFORMS": "none-that-exists"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("step 4, ")


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (2, ["step 2 is not in ", "from step 3 to 7", "logging.ledger_every: 3"]),
        (9, ["step 9 is not in ", "from step 3 to 7"]),
        (10, ["step 10 isn't reached", "ends at step 7"]),
        (0, ["step 0 is not in "]),
    ],
)
def test_a_step_that_is_not_there(chomp: Any, run: Any, step: int, words: list[str]):
    # The last step is there, whatever `ledger_every`.
    folder = run(train={"steps": 7}, logging={"ledger_every": 3})
    done = chomp("trace", folder, "--step", step)
    assert (done.code, done.out) == (2, "")
    for word in words:
        assert word in done.err
    assert chomp("trace", folder, "--step", "latest").out.startswith("step 7, ")
    assert chomp("trace", folder, "--step", 6).code == 0


def test_no_ledger(chomp: Any, run: Any, tmp_path: Path):
    done = chomp("trace", run(logging={"ledger_every": 0}))
    assert done.code == 2
    assert "has no ledger.jsonl: its training has not begun, or logging.ledger_" in done.err
    assert "holds no run" in chomp("trace", tmp_path / "nothing").err
    for wrong in ("x", "-1", "1.5", "²"):
        assert "latest or a step" in chomp("trace", tmp_path / "run", "--step", wrong).err


def test_no_step_yet(run: Any):
    folder = run()
    ledger = folder / "ledger.jsonl"
    ledger.write_bytes(ledger.read_bytes().splitlines(keepends=True)[0])
    with pytest.raises(ResumeError, match="holds no step yet"):
        trace(folder, None)


def test_a_corpus_that_has_changed_is_not_read(chomp: Any, run: Any, own: Path, texts: list[str]):
    folder = run(data={"files": [str(own)]})
    own.write_text(own.read_text().replace("def ", "dEf "))
    done = chomp("trace", folder)
    assert (done.code, done.out) == (2, "")
    assert "the corpus has changed since step 4 was trained on it" in done.err
    assert "file own.jsonl: was " in done.err


def test_steps_before_and_behind_an_allowed_change_of_the_corpus(run: Any, own: Path):
    data = {"files": [str(own)]}
    folder = run(data=data)
    own.write_text(own.read_text().replace("def ", "dEf "))
    allow = ("-o", "train.steps=6", "--allow-change", "data")
    run(*allow, resume="latest", data=data)
    for step in (5, 6):
        assert trace(folder, step).step == step
    for step in (1, 4):
        with pytest.raises(DataError, match=f"changed since step {step} was"):
            trace(folder, step)


def test_the_evaluation_texts_are_no_matter(run: Any, own: Path, corpus: Path):
    folder = run(data={"eval_files": [str(own)]}, train={"eval_every": 2})
    own.write_text('{"text": "something else"}\n')
    assert trace(folder, None).step == 4


def test_what_cannot_be_read_any_more_is_said_document_by_document(tmp_path: Path):
    """After the fingerprint was compared: files above 1 GiB are only looked at in parts."""
    lines, gone = tmp_path / "a.jsonl", tmp_path / "gone.txt"
    lines.write_text('{"text": "a"}\n\n{"text": 3}\n{"other": "b"}\n{"text": "e"}\n')
    gone.write_text("text")
    shards = find_files("data.files", [str(lines), str(gone)], "text").shards
    gone.unlink()
    places = [(0, 4), (0, 9), (0, 1), (1, 0), (0, 2), (0, 3), (0, 0)]
    found = read_documents(shards, places)
    assert [(document.source, document.row) for document in found] == [
        (shards[shard].name, row) for shard, row in places
    ]
    assert [document.text for document in found] == ["e", None, None, None, None, None, "a"]
    problems = [document.problem for document in found]
    assert [problem is None for problem in problems] == [d.text is not None for d in found]
    assert problems[1] == problems[2] == "there is no such row"
    assert "No such file" in str(problems[3])
    assert "not a string" in str(problems[4])
    assert problems[5] == "it has no text"


def test_control_characters_are_visible_and_lines_have_a_width():
    long = "/a/very/long/path" * 20 + "/end.txt"
    documents = [
        Document("b\x1b[31m.txt", 7, "one\ntwo\x00\u202e\x85 é", None),
        Document(long, 123, "漢字" * 100, None),
        Document("c.txt", 0, None, "gone\n"),
    ]
    lines = trace_lines(Trace(3, 4, "ab", 8, 5, documents), 100)
    assert lines[0] == "step 3, batch 4, hash ab: 8 tokens, 5 targets, 3 document(s)"
    assert all(line.isprintable() for line in lines)
    assert all(cell_len(line) <= 100 for line in lines)
    assert r"b\u001b[31m.txt, row 7" in lines[1]
    assert lines[1].endswith(r"one\ntwo\u0000\u202e\u0085 é")
    assert "/end.txt, row 123  漢字" in lines[2]
    assert lines[2].endswith("…")
    assert lines[3].endswith(r"(can't be read: gone\n)")
