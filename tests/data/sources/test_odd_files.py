"""Files as people have them: Unicode of any form, compression, odd JSON, disks that fail."""

import bz2
import gzip
import io
import json
import lzma

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from chomp.data.sources.formats import read_file
from chomp.data.sources.local import find_files
from chomp.data.sources.rows import BrokenFileError, Row
from chomp.errors import DataError

TEXT = "Zwölf Boxkämpfer jagen Viktor 你好 😀\nquer über den großen Sylter Deich.\n" * 9
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le+", "utf-16-be+", "utf-32")


def encoded(text: str, encoding: str) -> bytes:
    """With a byte order mark where the name ends with +."""
    name = encoding.removesuffix("+")
    return ("\ufeff" * encoding.endswith("+") + text).encode(name)


def rows(data: bytes, name: str, start=0, separator=None, text_key="text"):
    return list(read_file(io.BytesIO(data), name, start, text_key, separator))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_byte_order_marks_are_heeded_and_said(tmp_path, encoding):
    record = json.dumps({"text": TEXT}, ensure_ascii=False) + "\n"
    files = {"a.txt": TEXT, "b.md": TEXT, "c.jsonl": record * 3}
    for name, content in files.items():
        (tmp_path / name).write_bytes(encoded(content, encoding))
        corpus = find_files("data.files", [str(tmp_path / name)], "text")
        found = [row for shard in corpus.shards for _, row in shard.rows(0)]
        assert {row.text for row in found} == {TEXT}, name
        assert not any(row.repaired for row in found)
        assert len(found) == (3 if name == "c.jsonl" else 1)
        said = " ".join(corpus.notes)
        assert ("UTF-" in said) == (encoding[:5] != "utf-8"), name
        # Earlier versions read it otherwise: a run that they began isn't the same.
        changed = encoding != "utf-8" and (encoding[:5] != "utf-8" or name != "c.jsonl")
        assert ("byte_order_marks" in corpus.fingerprint) == changed
        lines = rows(encoded(content, encoding), name, 1 if name == "c.jsonl" else 0)
        assert lines[0][1].text == TEXT


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark_is_refused_by_name(encoding):
    data = "An English text, as a script wrote it. ".encode(encoding) * 20
    ((_, row),) = rows(data, "a.txt")
    assert "a.txt: seems to be UTF-16" in row.fault
    ((_, row),) = rows('{"text": "some words"}'.encode(encoding), "a.jsonl")
    assert "UTF-16" in row.fault
    # NUL bytes alone don't make a text another encoding.
    assert rows(b"a\0b" * 50, "a.txt")[0][1].text == "a\0b" * 50


line_break = st.sampled_from(["\n", "\r\n"])
pieces = st.lists(
    st.sampled_from(["a b", "one\ntwo", "ä", "", "<|end", "|>", "-", "\r\n"]), max_size=8
)


@given(pieces, line_break, st.sampled_from(["<|end|>", "\n\n", "\n---\n", "ä"]), st.integers(1, 9))
@settings(max_examples=200, deadline=None)
def test_separators_cut_text_files_into_documents(parts, end, separator, piece):
    from chomp.data.sources import text_files

    text = separator.join(parts).replace("\r\n", "\n").replace("\n", end)
    expected = [
        part.strip("\r\n")
        for part in text.replace("\r\n", "\n").split(separator)
        if part.strip("\r\n")
    ]
    before, text_files.PIECE_BYTES = text_files.PIECE_BYTES, piece
    try:
        found = rows(text.encode(), "a.txt", separator=separator)
        assert [row.text.replace("\r\n", "\n") for _, row in found] == expected
        assert [number for number, _ in found] == list(range(len(expected)))
        for start in range(len(found) + 1):
            assert rows(text.encode(), "a.txt", start, separator) == found[start:]
    finally:
        text_files.PIECE_BYTES = before
    with pytest.raises(DataError, match="the saved place"):
        rows(text.encode(), "a.txt", len(found) + 1, separator)


def test_a_large_text_file_is_not_read_whole():
    class Counting(io.BytesIO):
        largest = 0

        def read(self, size=-1):
            self.largest = max(self.largest, len(self.getvalue()) if size < 0 else size)
            return super().read(size)

    file = Counting(b"some words\n<|endoftext|>\n" * 200_000)
    assert sum(1 for _ in read_file(file, "a.txt", 0, "text", "<|endoftext|>")) == 200_000
    assert file.largest <= 1 << 20


@pytest.mark.parametrize("window", [27, 28, 31])
def test_zstd_frames_of_any_window(window):
    data = json.dumps({"text": "words"}).encode() + b"\n"
    # The frame's header says what its window is, however short the frame.
    parameters = zstandard.ZstdCompressionParameters(window_log=window, enable_ldm=True)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    packed = compressor.compress(data * 3) + compressor.flush()
    assert zstandard.get_frame_parameters(packed).window_size == 1 << window
    assert [row.text for _, row in rows(packed, "a.jsonl.zst")] == ["words"] * 3


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress])
def test_compression_is_known_by_content(name, pack):
    assert rows(pack(b'{"text": "words"}\n'), name) == [(0, Row("words"))]


def test_json_that_is_odd():
    huge = b'{"id": %s, "text": "words"}\n' % (b"7" * 5000)
    assert rows(huge * 2, "a.jsonl") == [(0, Row("words")), (1, Row("words"))]
    assert rows(b'{"text": "a", "text": "b"}', "a.jsonl") == [(0, Row("b"))]
    records = [{"text": "a"}, {"text": "b"}]
    for indent in (None, 1):
        for content in (records, {"rows": records}):
            fault = rows(json.dumps(content, indent=indent).encode(), "a.jsonl")[0][1]
            if indent or content is records:
                assert "JSON array" in fault.fault or "over several lines" in fault.fault
    number = rows(b'{"text": %s}' % (b"7" * 5000), "a.jsonl")[0][1]
    assert "the text is not a string" in number.fault


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view()])
def test_binary_columns_are_utf_8(kind):
    file = io.BytesIO()
    pq.write_table(pa.table({"text": pa.array(["ä".encode(), None, b"\xff\xd8"], kind)}), file)
    found = [row for _, row in rows(file.getvalue(), "a.parquet")]
    assert found[:2] == [Row("ä"), Row()]
    assert "bytes that are not UTF-8" in found[2].fault


@pytest.mark.parametrize("form", ["stream", "file"])
def test_arrow_from_any_row(form):
    texts = [f"text {i}" if i % 7 else None for i in range(1000)]
    table, file = pa.table({"text": texts}), io.BytesIO()
    make = pa.ipc.new_stream if form == "stream" else pa.ipc.new_file
    with make(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=300)
    data = file.getvalue()
    for start in (0, 1, 299, 300, 999, 1000):
        expected = list(enumerate(map(Row, texts)))[start:]
        assert rows(data, "a.arrow", start) == expected
    with pytest.raises(DataError, match="no column 'body'"):
        rows(data, "a.arrow", text_key="body")
    with pytest.raises((BrokenFileError, DataError)):
        rows(data[: len(data) // 2], "a.arrow")


class FailingDisk(io.BytesIO):
    """A file whose disk fails after some bytes."""

    def __init__(self, data: bytes, good: int):
        super().__init__(data)
        self._good = good

    def read(self, size=-1, /):
        data = super().read(size)
        if self.tell() > self._good:
            raise OSError(5, "Input/output error")
        return data

    def readinto(self, buffer, /):
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readline(self, size=-1, /):
        line = super().readline(size)
        if self.tell() > self._good:
            raise OSError(5, "Input/output error")
        return line

    __next__ = readline


def test_errors_of_reading_are_never_broken_content():
    lines = b"".join(b'{"text": "%d words %s"}\n' % (i, b"x" * (i % 50)) for i in range(5000))
    table = io.BytesIO()
    text = pa.table({"text": [f"{i} words {'x' * (i % 50)}" for i in range(5000)]})
    pq.write_table(text, table, row_group_size=100, compression=None)
    stream = io.BytesIO()
    with pa.ipc.new_stream(stream, text.schema) as writer:
        writer.write_table(text, max_chunksize=100)
    kinds = {
        "a.jsonl": lines,
        "a.jsonl.gz": gzip.compress(lines, 0),
        "a.jsonl.zst": zstandard.ZstdCompressor(level=-50).compress(lines),
        "a.parquet": table.getvalue(),
        "a.arrow": stream.getvalue(),
        "a.txt": lines,
    }
    for name, data in kinds.items():
        for good in (0, len(data) // 2):
            with pytest.raises(OSError, match="Input/output error") as caught:
                for _ in read_file(FailingDisk(data, good), name, 0, "text"):
                    pass
            assert caught.value.errno == 5, name


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_byte_order_marks_are_heeded_in_compressed_lines(tmp_path, encoding, pack):
    record = json.dumps({"text": TEXT}, ensure_ascii=False) + "\n"
    for name in ("a.jsonl.gz", "a.jsonl.zst", "a.jsonl"):
        (tmp_path / name).write_bytes(pack(encoded(record * 3, encoding)))
        corpus = find_files("data.files", [str(tmp_path / name)], "text")
        found = [row for shard in corpus.shards for _, row in shard.rows(0)]
        assert found == [Row(TEXT)] * 3
        assert ("UTF-" in " ".join(corpus.notes)) == (encoding[:5] != "utf-8")


ARCHIVES = {
    "gzip": gzip.compress(TEXT.encode()),
    "zstd": zstandard.compress(TEXT.encode()),
    "bzip2": bz2.compress(TEXT.encode(), 5),
    "xz": lzma.compress(TEXT.encode()),
    "zip": b"PK\x03\x04" + bytes(range(99)),
    "PDF": b"%PDF-1.7\n%\xe2\xe3",
    "a program": b"\x7fELF" + bytes(range(99)),
}


def parquet_and_arrow():
    table, files = pa.table({"text": [TEXT]}), (io.BytesIO(), io.BytesIO())
    pq.write_table(table, files[0])
    with pa.ipc.new_file(files[1], table.schema) as writer:
        writer.write_table(table)
    return dict(zip(("Parquet", "Arrow"), (file.getvalue() for file in files), strict=True))


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.py"])
@pytest.mark.parametrize("separator", [None, "\n\n"])
def test_what_is_no_text_is_refused_by_name_in_place_of_trained_on(name, separator):
    for kind, data in (ARCHIVES | parquet_and_arrow()).items():
        ((number, row),) = rows(data, name, separator=separator)
        assert (number, row.text) == (0, None)
        assert row.fault == f"{name}: not a text file, but {kind} by its first bytes"
    for text in ("BZh is a word.", "PAR1 too", "%PDF", "PK", "P"):
        assert rows(text.encode(), name, separator=separator) == [(0, Row(text))]


def test_lines_that_are_another_kind_of_file_say_so():
    for kind, data in (ARCHIVES | parquet_and_arrow()).items():
        if kind not in ("gzip", "zstd"):
            fault = rows(data, "a.jsonl")[0][1].fault
            assert fault.endswith(f"(the file is {kind} by its first bytes)"), kind
