"""File formats: rows of text, JSON lines, Parquet and Arrow files, streamed from any row on."""

import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from chomp.data.resume import check_place
from chomp.data.sources.decompress import broken_compression, decompressed
from chomp.data.sources.file_kinds import kind_by_content
from chomp.data.sources.rows import BrokenFileError, Row, Rows
from chomp.data.sources.text_files import read_text
from chomp.data.sources.unicode_text import looks_like_utf16, text_row, utf8_lines
from chomp.errors import DataError

TEXT_SUFFIXES = (".txt", ".md", ".py")
LINES_SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst")
ARROW_SUFFIX = ".arrow"
ARROW_SUFFIXES = (".parquet", ARROW_SUFFIX)
"""Files that pyarrow reads."""
SUFFIXES = (*TEXT_SUFFIXES, *LINES_SUFFIXES, *ARROW_SUFFIXES)
PARQUET_ROWS = 256
"""Rows that are turned from Arrow to Python at once."""


def read_file(
    file: BinaryIO, name: str, start: int, text_key: str, separator: str | None = None
) -> Rows:
    """Yield a file's rows from number `start` on, as its name says that they are kept."""
    if name.endswith(TEXT_SUFFIXES):
        return read_text(file, name, start, separator)
    if name.endswith(LINES_SUFFIXES):
        return read_lines(file, name, start, text_key)
    if name.endswith(ARROW_SUFFIX):
        return read_arrow(file, name, start, text_key)
    return read_parquet(file, name, start, text_key)


def value_row(value: object, place: str) -> Row:
    """Return the row of a value from a column of texts; lone surrogates are replaced."""
    if value is None:
        return Row()
    if isinstance(value, bytes):
        try:
            return Row(value.decode())
        except UnicodeDecodeError:
            return Row(fault=f"{place}: the column holds bytes that are not UTF-8 text")
    if not isinstance(value, str):
        return Row(fault=f"{place}: the text is not a string but {_short(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        return Row(value.encode("utf-16", "surrogatepass").decode("utf-16", "replace"), True)
    return Row(value)


def read_lines(file: BinaryIO, name: str, start: int, text_key: str) -> Rows:
    """Yield a row for each line that isn't blank, numbered as in the file (from 0)."""
    number = -1
    try:
        for number, line in enumerate(utf8_lines(decompressed(file, name))):
            if number >= start and (line := line.strip()):
                yield number, _line_row(line, f"{name}, line {number + 1}", text_key)
    except broken_compression() as error:
        place = f"after line {number + 1}" if number > 0 else "at the start"
        raise BrokenFileError(f"{name}: broken compression {place}: {error}") from error
    check_place(start, number + 1)


def _line_row(line: bytes, place: str, text_key: str) -> Row:
    text = text_row(line)
    assert text.text is not None
    try:
        record = _parse(text.text)
    except ValueError as error:
        hint = _what_it_is(line) if place.endswith(", line 1") else ""
        return Row(fault=f"{place}: broken JSON: {error}{hint}")
    except RecursionError:
        return Row(fault=f"{place}: broken JSON: nested too deeply")
    if not isinstance(record, dict):
        hint = _ARRAY if isinstance(record, list) and record and type(record[0]) is dict else ""
        return Row(fault=f"{place}: not a JSON object but {_short(record)}{hint}")
    if text_key not in record:
        return Row(columns=tuple(record) or ("none",))
    row = value_row(record[text_key], place)
    return row._replace(repaired=True) if text.repaired and row.text else row


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except ValueError:  # a number of thousands of digits, which Python doesn't read
        return json.loads(text, parse_int=float)


_ARRAY = (
    " (the file is a JSON array, it seems, not JSON lines: an object on each line; jq -c '.[]' "
    "makes lines of it)"
)
_LONG = " (the file is one JSON object over several lines, it seems, not JSON lines)"


def _what_it_is(line: bytes) -> str:
    """Say what a line that isn't JSON seems to be, if that can be guessed; else nothing."""
    if looks_like_utf16(line):
        return " (the file is UTF-16 without a byte order mark, it seems; write it as UTF-8)"
    if kind := kind_by_content(line):
        return f" (the file is {kind} by its first bytes)"
    if line in (b"[", b"[{"):
        return _ARRAY
    return _LONG if line == b"{" else ""


def read_parquet(file: BinaryIO, name: str, start: int, text_key: str) -> Rows:
    """Yield the rows of the column `text_key`; row groups before `start` aren't read.

    Raises DataError if the file has no such column, BrokenFileError if it can't be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = start
    try:
        parquet = pq.ParquetFile(file)
        _check_column(name, parquet.schema_arrow.names, text_key)
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
        _check_is_content(error)
        raise BrokenFileError(f"{name}: broken Parquet at row {row}: {error}") from error


def read_arrow(file: BinaryIO, name: str, start: int, text_key: str) -> Rows:
    """Yield the rows of an Arrow file or stream, as `save_to_disk` of `datasets` writes them.

    Raises as `read_parquet` does.
    """
    import pyarrow as pa

    row = 0
    try:
        for batch in _arrow_batches(file):
            _check_column(name, batch.schema.names, text_key)
            skip = max(0, min(start - row, len(batch)))
            row += skip
            for at in range(skip, len(batch), PARQUET_ROWS):
                column = batch.column(text_key).slice(at, PARQUET_ROWS)
                for found in _column_rows(column, name, row):
                    yield row, found
                    row += 1
    except pa.ArrowException as error:
        raise BrokenFileError(f"{name}: broken Arrow at row {row}: {error}") from error
    except OSError as error:
        _check_is_content(error)
        raise BrokenFileError(f"{name}: broken Arrow at row {row}: {error}") from error
    check_place(start, row)


def _arrow_batches(file: BinaryIO) -> Iterator[Any]:
    import pyarrow as pa

    magic = file.read(6)
    file.seek(0)
    if magic != b"ARROW1":
        with pa.ipc.open_stream(file) as reader:
            yield from reader
        return
    with pa.ipc.open_file(file) as reader:
        for number in range(reader.num_record_batches):
            yield reader.get_batch(number)


def _check_column(name: str, columns: list[str], text_key: str) -> None:
    if text_key not in columns:
        raise DataError(
            f"{name}: data.text_key: no column {text_key!r}; "
            f"the columns there are: {', '.join(columns)}"
        )


def _check_is_content(error: OSError) -> None:
    """Raise an error of reading again: Arrow reports damaged content as OSError without errno."""
    if error.errno is not None or type(error) is not OSError:
        raise error


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
