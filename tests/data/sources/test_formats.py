import gzip
import io
import itertools
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from chomp.data.sources.formats import read_file, read_lines, read_parquet, value_row
from chomp.data.sources.rows import BrokenFileError, Row
from chomp.errors import DataError

MANY = b"".join(json.dumps({"text": f"text {i}"}).encode() + b"\n" for i in range(200))


def lines(data: bytes, name="x.jsonl", start=0):
    return list(read_lines(io.BytesIO(data), name, start, "text"))


def parquet(table: pa.Table, start=0, **options):
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    file.seek(0)
    return list(read_parquet(file, "x.parquet", start, "text"))


def text(data: bytes, start=0, separator=None):
    return list(read_file(io.BytesIO(data), "x.txt", start, "text", separator))


def test_text_is_one_row_and_invalid_bytes_are_replaced():
    assert text(b"a\r\nb\n") == [(0, Row("a\r\nb\n"))]
    assert text(b"a\xffb") == [(0, Row("a�b", True))]
    assert text(b"abc", 1) == []


def test_lines_are_numbered_as_in_the_file():
    data = b'\xef\xbb\xbf{"text": "a"}\n\n{"text": "b", "n": 1}\r\n   \n{"text": "c"}'
    assert lines(data) == [(0, Row("a")), (2, Row("b")), (4, Row("c"))]
    assert lines(data, start=1) == [(2, Row("b")), (4, Row("c"))]
    assert lines(data, start=5) == []


@pytest.mark.parametrize(
    "line, row",
    [
        (b'{"text": null}', Row()),
        (b'{"text": ""}', Row("")),
        (b'{"body": "a", "n": 1}', Row(columns=("body", "n"))),
        (b'{"text": "a\xff"}', Row("a�", True)),
        (b'{"text": "\\ud800a"}', Row("�a", True)),
        (b'{"text": "\\ud83d\\ude00"}', Row("😀")),
        (b'{"text": 5}', Row(fault="x.jsonl, line 1: the text is not a string but int 5")),
        (b"[1, 2]", Row(fault="x.jsonl, line 1: not a JSON object but list [1, 2]")),
    ],
)
def test_odd_lines(line, row):
    assert lines(line) == [(0, row)]


@pytest.mark.parametrize("line", [b"{", b'{"text": "a"', b"nonsense", b"[" * 100_000])
def test_broken_lines_name_file_and_line(line):
    rows = lines(b'{"text": "a"}\n' + line + b'\n{"text": "b"}')
    assert [row.text for _, row in rows] == ["a", None, "b"]
    assert rows[1][1].fault.startswith("x.jsonl, line 2: broken JSON: ")


@pytest.mark.parametrize("suffix, compress", [(".gz", gzip.compress), (".zst", zstandard.compress)])
def test_compressed_lines(suffix, compress):
    data = b"".join(json.dumps({"text": f"{i}" * 50}).encode() + b"\n" for i in range(2000))
    packed = compress(data[: len(data) // 2]) + compress(data[len(data) // 2 :])  # two members
    assert lines(packed, "x.jsonl" + suffix) == lines(data)
    assert lines(packed, "x.jsonl" + suffix, 1234) == lines(data, start=1234)
    for end in (len(packed) // 3, len(packed) - 1):
        with pytest.raises(BrokenFileError, match=rf"x\.jsonl{suffix}: broken compression"):
            lines(packed[:end], "x.jsonl" + suffix)
    with pytest.raises(BrokenFileError, match=r"broken compression at the start"):
        lines(b"??" + data, "x.jsonl" + suffix)
    assert lines(packed, "x.jsonl") == lines(data, "x.jsonl" + suffix) == lines(data)


@pytest.mark.parametrize(
    "suffix, packed, count",
    [
        (".gz", gzip.compress(MANY) + b"more", 200),
        (".gz", gzip.compress(MANY) + gzip.compress(b"?" * 99)[:20], 200),
        (".gz", gzip.compress(MANY)[:-1], 200),
        (".gz", gzip.compress(MANY)[:-8] + bytes(8), 0),  # another checksum: any of it may be wrong
        (".gz", gzip.compress(MANY) + b"\0\0more", 200),
        (".gz", bytes(500), 0),  # as a disk leaves it whose power went away
        (".zst", zstandard.compress(MANY) + b"more", 200),
        (".zst", zstandard.compress(MANY) + zstandard.compress(b"?" * 99)[:-1], 200),
    ],
)
def test_all_before_a_broken_place_is_read(suffix: str, packed: bytes, count: int):
    rows = read_lines(io.BytesIO(packed), f"x.jsonl{suffix}", 0, "text")
    assert list(itertools.islice(rows, count)) == lines(MANY)[:count]
    with pytest.raises(BrokenFileError, match="broken compression"):
        next(rows)


def test_zeros_after_gzip_are_padding():
    packed = gzip.compress(MANY)
    padded = packed + bytes(512) + packed + bytes(100_000)
    assert lines(padded, "x.jsonl.gz") == lines(MANY + MANY)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()])
def test_parquet_from_any_row(kind):
    texts = [f"text {i}" if i % 7 else None for i in range(1000)]
    table = pa.table({"text": pa.array(texts, kind), "n": range(1000)})
    expected = list(enumerate(Row(text) for text in texts))
    for start in (0, 1, 99, 100, 517, 999, 1000):
        assert parquet(table, start, row_group_size=100) == expected[start:]


def test_parquet_dictionary_and_invalid_utf8():
    assert parquet(pa.table({"text": pa.array(["a", "b", "a"]).dictionary_encode()})) == [
        *enumerate([Row("a"), Row("b"), Row("a")])
    ]
    bad = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0\3\0\0\0"), pa.py_buffer(b"a\xffb")]
    )
    assert parquet(pa.table({"text": bad})) == [(0, Row("a")), (1, Row("�b", True))]


def test_parquet_that_is_no_text():
    rows = parquet(pa.table({"text": [1, None]}))
    assert rows[0][1].fault == "x.parquet, row 0 (from 0): the text is not a string but int 1"
    assert rows[1][1] == Row()
    with pytest.raises(DataError, match="no column 'text'; the columns there are: body, n"):
        parquet(pa.table({"body": ["a"], "n": [1]}))


def test_broken_parquet_names_file_and_row():
    file = io.BytesIO()
    pq.write_table(pa.table({"text": [f"{i}" * 99 for i in range(1000)]}), file, row_group_size=100)
    data = file.getvalue()
    for broken in (b"", b"PAR1", data[:500], b"x" * 1000):
        with pytest.raises(BrokenFileError, match=r"x\.parquet: broken Parquet at row 0"):
            list(read_parquet(io.BytesIO(broken), "x.parquet", 0, "text"))
    middle = data[:20_000] + b"\xff" * 5_000 + data[25_000:]
    with pytest.raises(BrokenFileError, match=r"x\.parquet: broken Parquet at row \d00"):
        list(read_parquet(io.BytesIO(middle), "x.parquet", 0, "text"))


def test_long_values_are_shortened_in_messages():
    assert len(value_row(list(range(1000)), "here").fault) < 90
