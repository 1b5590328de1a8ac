"""File formats: rows of text, JSON lines and Parquet files, streamed from any row on."""

import gzip
import io
import json
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

from chomp.data.continuing import misfit
from chomp.data.documents import BrokenFileError, Row
from chomp.errors import DataError

TEXT_SUFFIXES = (".txt", ".md", ".py")
LINES_SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst")
SUFFIXES = (*TEXT_SUFFIXES, *LINES_SUFFIXES, ".parquet")
PARQUET_ROWS = 256
"""Rows that are turned from Arrow to Python at once."""

Rows = Iterator[tuple[int, Row]]


def text_row(data: bytes) -> Row:
    """Return the row of a UTF-8 text; invalid bytes are replaced."""
    try:
        return Row(data.decode())
    except UnicodeDecodeError:
        return Row(data.decode(errors="replace"), repaired=True)


def value_row(value: object, place: str) -> Row:
    """Return the row of a value from a column of texts; lone surrogates are replaced."""
    if value is None:
        return Row()
    if not isinstance(value, str):
        return Row(fault=f"{place}: the text is not a string but {_short(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        return Row(value.encode("utf-16", "surrogatepass").decode("utf-16", "replace"), True)
    return Row(value)


def check_place(start: int, rows: int) -> None:
    """Check that a saved place isn't beyond a file's end. Raises DataError."""
    if start > rows:
        raise misfit(f"row {start} of a file or shard of {rows} rows")


def read_text(file: BinaryIO, start: int) -> Rows:
    """Yield a whole file as one row."""
    check_place(start, 1)
    if start == 0:
        yield 0, text_row(file.read())


def read_lines(file: BinaryIO, name: str, start: int, text_key: str) -> Rows:
    """Yield a row for each line that isn't blank, numbered as in the file (from 0)."""
    number = -1
    try:
        for number, line in enumerate(_decompressed(file, name)):
            if number >= start and (line := line.strip()):
                if number == 0:
                    line = line.removeprefix(b"\xef\xbb\xbf")
                yield number, _line_row(line, f"{name}, line {number + 1}", text_key)
    except (EOFError, zlib.error, gzip.BadGzipFile, _zstd_errors(name)) as error:
        place = f"after line {number + 1}" if number > 0 else "at the start"
        raise BrokenFileError(f"{name}: broken compression {place}: {error}") from error
    check_place(start, number + 1)


def _decompressed(file: BinaryIO, name: str) -> BinaryIO:
    if name.endswith(".gz"):
        return io.BufferedReader(gzip.GzipFile(fileobj=file), 1 << 20)  # pyright: ignore
    if name.endswith(".zst"):
        return io.BufferedReader(ZstdFile(file), 1 << 20)
    return file


class ZstdFile(io.RawIOBase):
    """The text of a zstd file, of several frames perhaps.

    The library's own reader takes the end of a file that was cut off for the end of its text.
    """

    def __init__(self, file: BinaryIO):
        super().__init__()
        self._file = file
        self._frame: Any = None
        self._text = memoryview(b"")
        self._rest = b""  # of what was read, behind the end of a frame

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Read at most as many bytes as `buffer` holds. Raises EOFError at a torn end."""
        while not self._text:
            data = self._rest or self._file.read(1 << 16)
            if not data:
                if self._frame is not None:
                    raise EOFError("the file ended before its last frame did")
                return 0
            self._decompress(data)
        view = memoryview(buffer).cast("B")
        count = min(len(view), len(self._text))
        view[:count] = self._text[:count]
        self._text = self._text[count:]
        return count

    def _decompress(self, data: bytes) -> None:
        import zstandard

        if self._frame is None:
            self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._text, self._rest = memoryview(self._frame.decompress(data)), b""
        if self._frame.eof:
            self._rest, self._frame = self._frame.unused_data, None


def _zstd_errors(name: str) -> type[Exception]:
    if not name.endswith(".zst"):
        return EOFError
    import zstandard

    return zstandard.ZstdError


def _line_row(line: bytes, place: str, text_key: str) -> Row:
    text = text_row(line)
    assert text.text is not None
    try:
        record = json.loads(text.text)
    except ValueError as error:
        return Row(fault=f"{place}: broken JSON: {error}")
    except RecursionError:
        return Row(fault=f"{place}: broken JSON: nested too deeply")
    if not isinstance(record, dict):
        return Row(fault=f"{place}: not a JSON object but {_short(record)}")
    if text_key not in record:
        return Row(columns=tuple(record) or ("none",))
    row = value_row(record[text_key], place)
    return row._replace(repaired=True) if text.repaired and row.text else row


def read_parquet(file: BinaryIO, name: str, start: int, text_key: str) -> Rows:
    """Yield the rows of the column `text_key`; row groups before `start` aren't read.

    Raises DataError if the file has no such column, BrokenFileError if it can't be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = start
    try:
        parquet = pq.ParquetFile(file)
        columns = parquet.schema_arrow.names
        if text_key not in columns:
            raise DataError(
                f"{name}: data.text_key: no column {text_key!r}; "
                f"the columns there are: {', '.join(columns)}"
            )
        check_place(start, parquet.metadata.num_rows)
        group, row = _row_group(parquet.metadata, start)
        for number in range(group, parquet.metadata.num_row_groups):
            for batch in parquet.iter_batches(PARQUET_ROWS, [number], [text_key]):
                skip = max(0, min(start - row, len(batch)))
                row += skip
                for found in _column_rows(batch.column(0).slice(skip), name, row):
                    yield row, found
                    row += 1
    except pa.ArrowException as error:
        raise BrokenFileError(f"{name}: broken Parquet at row {row}: {error}") from error
    except OSError as error:
        # Arrow reports damaged pages and thrift headers as OSError, without an errno.
        if error.errno is not None or type(error) is not OSError:
            raise
        raise BrokenFileError(f"{name}: broken Parquet at row {row}: {error}") from error


def _row_group(metadata, start: int) -> tuple[int, int]:
    """Return the row group that holds row `start`, and its first row."""
    first = 0
    for group in range(metadata.num_row_groups):
        rows = metadata.row_group(group).num_rows
        if start < first + rows:
            return group, first
        first += rows
    return metadata.num_row_groups, first


def _column_rows(column, name: str, first: int) -> Iterator[Row]:
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_string(column.type):
        column = column.cast(pa.binary())  # Arrow doesn't check UTF-8 when it reads
    elif pa.types.is_large_string(column.type) or pa.types.is_string_view(column.type):
        column = column.cast(pa.large_binary())
    else:
        for row, value in enumerate(column.to_pylist(), first):
            yield value_row(value, f"{name}, row {row} (from 0)")
        return
    for data in column.to_pylist():
        yield Row() if data is None else text_row(data)


def _short(value: object) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 40 else text[:37] + '...'}"
