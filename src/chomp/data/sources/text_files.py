"""Text files: one document each, or several between separators."""

import io
import re
from collections.abc import Iterator
from typing import BinaryIO

from chomp.data.resume import check_place
from chomp.data.sources.file_kinds import HEAD_BYTES, kind_by_content
from chomp.data.sources.rows import Row, Rows
from chomp.data.sources.unicode_text import MARK_BYTES, encoding_of, looks_like_utf16, text_row

PIECE_BYTES = 1 << 20


def read_text(file: BinaryIO, name: str, start: int, separator: str | None) -> Rows:
    """Yield the documents of a text file, from number `start` on.

    Without a separator, or where that occurs nowhere, the file is one. Nothing between two
    separators isn't a document.
    """
    head = file.read(max(HEAD_BYTES, MARK_BYTES))
    if kind := kind_by_content(head):
        yield 0, Row(fault=f"{name}: not a text file, but {kind} by its first bytes")
        return
    encoding, mark = encoding_of(head)
    file.seek(mark)
    if separator is None:
        check_place(start, 1)
        if start == 0:
            yield 0, _row(file.read(), name, encoding)
        return
    repaired = False
    if encoding != "utf-8":
        whole = text_row(file.read(), encoding)
        file, repaired = io.BytesIO((whole.text or "").encode()), whole.repaired
    number = 0
    for data in _separated(file, separator):
        row = _row(data, name)
        text = row.text and row.text.strip("\r\n")
        if text or row.fault:
            if number >= start:
                yield number, row._replace(text=text, repaired=row.repaired or repaired)
            number += 1
    check_place(start, number)


def _row(data: bytes, name: str, encoding: str = "utf-8") -> Row:
    if encoding == "utf-8" and looks_like_utf16(data):
        return Row(
            fault=f"{name}: seems to be UTF-16 without a byte order mark; write it as UTF-8 "
            f"(iconv -f UTF-16LE -t UTF-8 {name})"
        )
    return text_row(data, encoding)


def _separated(file: BinaryIO, separator: str) -> Iterator[bytes]:
    """Yield what stands between the separators of a file, without reading it whole."""
    parts = [re.escape(part.encode()) for part in separator.split("\n")]
    pattern = re.compile(b"\r?\n".join(parts))
    longest = 2 * len(separator.encode()) + 1
    buffer, searched = bytearray(), 0
    while piece := file.read(PIECE_BYTES):
        buffer += piece
        begin = 0
        for match in pattern.finditer(buffer, searched):
            yield bytes(buffer[begin : match.start()])
            begin = match.end()
        del buffer[:begin]
        searched = max(0, len(buffer) - longest)  # one may go on in the next piece
    yield bytes(buffer)
