import itertools
import json
import os
import random
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from chomp.data.sources import huggingface
from chomp.data.sources.documents import DocumentStream
from chomp.data.sources.huggingface import DatasetName, RemoteShard, open_dataset
from chomp.errors import DataError

HF = {"backend": "hf", "hf_name": None}


def write_shards(folder: Path, texts: list[str], kind: str, shards: int = 4) -> Path:
    data = folder / "data"
    data.mkdir(parents=True)
    for i in range(shards):
        part = texts[i::shards]
        path = data / f"train-{i:05d}-of-{shards:05d}.{kind}"
        if kind == "parquet":
            table = pa.table({"id": range(len(part)), "text": part})
            pq.write_table(table, path, row_group_size=10)
        else:
            lines = (json.dumps({"id": j, "text": text}) for j, text in enumerate(part))
            path.write_text("\n".join(lines) + "\n")
    return folder


def draw(data, count):
    return list(itertools.islice(data.train, count))


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
@pytest.mark.parametrize("packing_mode", ["sequential", "bin"])
def test_local_shards_over_epochs_resumed_twice_in_a_row(
    opened, assert_same, tmp_path, paragraphs, kind, packing_mode
):
    folder = write_shards(tmp_path / "set", paragraphs[:150], kind)
    keys = HF | {
        "hf_dataset": str(folder),
        "packing_mode": packing_mode,
        "packing_buffer_docs": 8,
        "shuffle_buffer_size": 23,
        "max_eval_samples": 10,
        "evaluate": True,
    }
    data = opened(**keys)
    expected = draw(data, 250)
    assert sum(d.stats.documents for d in expected) > 280  # two epochs
    got, state = [], None
    for count in (33, 1, 100, 0, 116):
        data = opened(**keys)
        if state:
            data.set_state(json.loads(state))
        got += draw(data, count)
        state = json.dumps(data.get_state())
        data.close()
    assert_same(got, expected)


def test_every_document_once_an_epoch(opened, tmp_path, paragraphs):
    folder = write_shards(tmp_path / "set", paragraphs, "parquet")
    drawn = list(opened(**HF, hf_dataset=str(folder), repeat=False).train)
    keys = {(key >> 32, key & 0xFFFFFFFF) for d in drawn for key in d.stats.keys}
    assert keys == {(shard, row) for shard in range(4) for row in range(125)}
    assert sum(d.stats.tokens for d in drawn) == sum(len(text.encode()) for text in paragraphs)


def test_other_formats_go_through_the_library_s_stream(opened, assert_same, tmp_path, paragraphs):
    data = tmp_path / "set"
    data.mkdir()
    for i in range(2):
        texts = paragraphs[i:40:2]
        pa.csv.write_csv(pa.table({"text": texts, "n": range(20)}), data / f"train-{i}.csv")
    keys = HF | {"hf_dataset": str(data), "shuffle_buffer_size": 7}
    expected = draw(opened(**keys), 60)
    assert {key for d in expected for key in d.stats.keys} == {
        shard << 32 | row for shard in range(2) for row in range(20)
    }
    half = opened(**keys)
    draw(half, 25)
    again = opened(**keys)
    again.set_state(json.loads(json.dumps(half.get_state())))
    assert_same(draw(again, 35), expected[25:])
    with pytest.raises(DataError, match=r"no row has 'body'; the keys there are: text, n"):
        draw(opened(**keys, text_key="body"), 1)


def test_an_evaluation_split_of_its_own(opened, tmp_path, paragraphs):
    folder = write_shards(tmp_path / "set", paragraphs[:50], "parquet")
    pq.write_table(
        pa.table({"text": paragraphs[50:80]}), folder / "data" / "validation-00000-of-00001.parquet"
    )
    data = opened(
        **HF,
        hf_dataset=str(folder),
        hf_eval_split="validation",
        max_eval_samples=20,
        evaluate=True,
        repeat=False,
    )
    assert data.evaluation.targets == sum(len(text.encode()) - 1 for text in paragraphs[50:70])
    assert sum(d.stats.documents for d in data.train) == 50


def test_mistakes(tmp_path, paragraphs, reading):
    folder = str(write_shards(tmp_path / "set", paragraphs[:8], "parquet"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no split 'test'; there are: train"):
        open_dataset("data.hf_split", DatasetName(folder), "test", reading)
    for dataset, message in [
        ((folder, "big"), r"data\.hf_name: .*'big' not found"),
        ((f"{folder}/no",), r"data\.hf_dataset: there is no f"),
        ((str(tmp_path / "empty"),), r"data\.hf_dataset|no split"),
        ((folder, None, "main"), r"data\.hf_revision: '.*set' is a folder"),
    ]:
        with pytest.raises(DataError, match=message):
            open_dataset("data.hf_split", DatasetName(*dataset), "train", reading)


def test_broken_rows_name_file_and_row(opened, tmp_path, paragraphs):
    folder = write_shards(tmp_path / "set", paragraphs[:40], "jsonl", shards=2)
    path = folder / "data" / "train-00001-of-00002.jsonl"
    lines = path.read_text().splitlines()
    lines[7] = '{"text": 17}'
    path.write_text("\n".join(lines))
    keys = HF | {"hf_dataset": str(folder), "repeat": False}
    with pytest.raises(DataError, match=r"train-00001-of-00002\.jsonl, line 8: the text is not a"):
        list(opened(**keys).train)
    drawn = list(opened(**keys, on_error="skip").train)
    assert (sum(d.stats.documents for d in drawn), sum(d.stats.skipped for d in drawn)) == (39, 1)


class FlakyFile(fsspec.spec.AbstractBufferedFile):
    def _fetch_range(self, start: int, end: int) -> bytes:
        self.fs.reads += 1
        if self.fs.random.random() < self.fs.fault_share:
            self.fs.faults += 1
            raise (ConnectionResetError, TimeoutError, OSError)[self.fs.faults % 3]("broke off")
        with open(self.path, "rb") as file:
            file.seek(start)
            return file.read(end - start)


class FlakyFileSystem(fsspec.AbstractFileSystem):
    """Local files whose reads fail at random."""

    protocol = "flaky"
    cachable = True

    def __init__(self, **options):
        super().__init__(**options)
        self.random, self.fault_share, self.faults, self.reads = random.Random(0), 0.3, 0, 0

    def info(self, path, **_):
        return {"name": path, "size": os.path.getsize(path), "type": "file"}

    def _open(self, path, mode="rb", **_):
        return FlakyFile(self, path, mode, block_size=2048, cache_type="none")


@pytest.fixture
def flaky(monkeypatch):
    monkeypatch.setattr(huggingface, "BUFFER_BYTES", 2048)  # many small reads
    fsspec.register_implementation("flaky", FlakyFileSystem, clobber=True)
    FlakyFileSystem.clear_instance_cache()
    return fsspec.filesystem("flaky")


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_a_stream_that_breaks_off_goes_on_at_the_exact_row(
    flaky, tmp_path, paragraphs, reading, kind
):
    folder = write_shards(tmp_path / "set", paragraphs, kind, shards=2)
    flaky.fault_share = 0.5
    reading = reading._replace(max_retries=40)
    shards = [
        RemoteShard(f"flaky://{path}", reading, (OSError,))
        for path in sorted((folder / "data").iterdir())
    ]
    iterator = DocumentStream(shards, reading, repeat=True, seed=None).__iter__()
    found = [next(iterator) for _ in range(2500)]
    expected = [paragraphs[i::2] for i in range(2)]
    assert [d.text for d in found] == [*expected[0], *expected[1]] * 5
    assert flaky.faults >= 20


def test_giving_up_after_max_retries(flaky, tmp_path, paragraphs, reading):
    folder = write_shards(tmp_path / "set", paragraphs, "parquet", shards=1)
    (path,) = (folder / "data").iterdir()
    flaky.fault_share = 0.0
    shards = [RemoteShard(f"flaky://{path}", reading, (OSError,))]
    iterator = DocumentStream(shards, reading, repeat=True, seed=None).__iter__()
    for _ in range(30):
        next(iterator)
    flaky.fault_share = 1.0
    with pytest.raises(
        DataError, match=r"parquet, byte \d+: reading failed, and again in 2 retries"
    ):
        for _ in range(500):
            next(iterator)
    place = iterator.get_state()["row"]
    flaky.fault_share = 0.0
    assert next(iterator).text == paragraphs[place]


@pytest.mark.parametrize("form", ["stream", "file", "saved"])
def test_an_arrow_file_that_is_cut_short_is_an_error(tmp_path, reading, form):
    """Were it mapped into memory, the look at what is gone would end the process."""
    table = pa.table({"text": [f"row {i} " * 200 for i in range(2000)]})
    folder, path = tmp_path / "set", tmp_path / "set" / "data.arrow"
    folder.mkdir()
    make = pa.ipc.new_file if form == "file" else pa.ipc.new_stream
    with make(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=100)
    if form == "saved":
        state = {"_data_files": [{"filename": path.name}], "_split": "train"}
        (folder / "state.json").write_text(json.dumps(state))
    corpus = open_dataset("data.hf_split", DatasetName(str(folder)), "train", reading)
    documents = iter(DocumentStream(corpus.shards, reading, repeat=False, seed=None))
    for _ in range(150):
        next(documents)
    assert str(path) not in Path("/proc/self/maps").read_text()
    os.truncate(path, 150_000)
    with pytest.raises(DataError):
        list(documents)
