import gzip
import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from chomp.data.sources.local import find_files, given_texts, standard_library
from chomp.errors import DataError


def keyed(corpus):
    return [
        (shard.name.rsplit("/")[-1], number, row.text)
        for shard in corpus.shards
        for number, row in shard.rows(0)
    ]


def test_every_format(tmp_path):
    line = json.dumps({"text": "from lines"}).encode() + b"\n"
    (tmp_path / "a.txt").write_text("from txt")
    (tmp_path / "b.md").write_text("from md")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "c.py").write_text("from py")
    (tmp_path / "d.jsonl").write_bytes(line)
    (tmp_path / "e.jsonl.gz").write_bytes(gzip.compress(line))
    (tmp_path / "f.jsonl.zst").write_bytes(zstandard.compress(line))
    pq.write_table(pa.table({"text": ["from parquet"]}), tmp_path / "g.parquet")
    corpus = find_files("data.files", [f"{tmp_path}/*.*", f"{tmp_path}/**/*.py"], "text")
    assert keyed(corpus) == [
        ("a.txt", 0, "from txt"),
        ("b.md", 0, "from md"),
        ("d.jsonl", 0, "from lines"),
        ("e.jsonl.gz", 0, "from lines"),
        ("f.jsonl.zst", 0, "from lines"),
        ("g.parquet", 0, "from parquet"),
        ("c.py", 0, "from py"),
    ]


def test_a_file_matched_twice_is_read_once(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    corpus = find_files("data.files", [f"{tmp_path}/a.txt", f"{tmp_path}/./*.txt"], "text")
    assert len(corpus.shards) == 1


def test_mistakes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, hint in (
        ("https://host/a.jsonl", "it is a URL"),
        ("$HOME/a.txt", "variables of the shell"),
        ("${DATA}/a.txt", "variables of the shell"),
        ("/data/{a,b}.txt", "give each path in the list"),
        ("a.txt,b.txt", "give each in the list"),
        ("a.txt b.txt", "give each in the list"),
    ):
        with pytest.raises(DataError, match=rf"no file matches '{re.escape(name)}'.*; .*{hint}"):
            find_files("data.files", [name], "text")
    with pytest.raises(DataError, match=r"data\.files: no file matches 'no/\*\.txt' \(in /[^;]*$"):
        find_files("data.files", ["no/*.txt"], "text")
    with pytest.raises(DataError, match=r"data\.files: no files given"):
        find_files("data.files", [], "text")
    (tmp_path / "a.doc").write_text("")
    (tmp_path / "b.doc").write_text("")
    with pytest.raises(
        DataError, match=r"unknown kind of file: a\.doc and 1 more; known are \.txt"
    ):
        find_files("data.files", ["*"], "text")
    with pytest.raises(DataError, match="no text given"):
        given_texts([])


def test_the_standard_library_is_large_sorted_and_without_tests():
    corpus = standard_library()
    names = [shard.name for shard in corpus.shards]
    assert names == sorted(names)
    assert corpus.fingerprint["bytes"] > 5_000_000
    assert not any("/test/" in name or "site-packages" in name for name in names)
    assert standard_library().fingerprint == corpus.fingerprint


def test_keys_name_file_and_row(opened, write_lines):
    paths = [write_lines(f"{i}.jsonl", {"text": f"a{i}"}, {"text": f"b{i}"}) for i in range(3)]
    data = opened((1, 1, 4), backend="files", files=[str(p) for p in paths], repeat=False)
    for drawn in data.train:
        for key in drawn.stats.keys:
            name, row = data.place(key)
            text = f"{'ab'[row]}{name[-7]}"
            assert text.encode() in drawn.batch.input_ids.astype("uint8").tobytes()
