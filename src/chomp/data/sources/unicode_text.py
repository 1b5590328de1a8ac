"""Bytes to text: byte order marks, UTF-16 without one, and bytes that are no UTF-8."""

import codecs
import io
from collections.abc import Iterator
from typing import Any, BinaryIO

from chomp.data.sources.rows import Row

MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # begins as that of UTF-16 does
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
MARK_BYTES = 4
HEAD_BYTES = 4096


def encoding_of(head: bytes) -> tuple[str, int]:
    """Return a text's encoding by its first bytes, and how many of these are its mark."""
    return next(((name, len(mark)) for mark, name in MARKS if head.startswith(mark)), ("utf-8", 0))


def looks_like_utf16(head: bytes) -> bool:
    """Return whether a text without a mark is UTF-16: every second byte is zero, mostly."""
    head = head[:HEAD_BYTES]
    zeros = sorted((head[0::2].count(0), head[1::2].count(0)))
    return len(head) >= 8 and zeros[1] > len(head) // 4 and zeros[0] < len(head) // 20


def text_row(data: bytes, encoding: str = "utf-8") -> Row:
    """Return the row of an encoded text; invalid bytes are replaced."""
    try:
        return Row(data.decode(encoding))
    except UnicodeDecodeError:
        return Row(data.decode(encoding, "replace"), repaired=True)


def first_bytes(file: BinaryIO) -> bytes:
    """Return the bytes that a mark would be in; the file stays at its beginning."""
    if isinstance(file, io.BufferedReader):  # one that decompresses can't go back
        return file.peek(MARK_BYTES)[:MARK_BYTES]
    head = file.read(MARK_BYTES)
    file.seek(0)
    return head


def utf8_lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of a file in UTF-8, whatever its mark says; the mark isn't in them."""
    encoding, mark = encoding_of(first_bytes(file))
    file.read(mark)
    if encoding == "utf-8":
        yield from file
        return
    wrapped: Any = io.TextIOWrapper(file, encoding, errors="replace", newline="\n")
    try:
        for line in wrapped:
            yield line.encode("utf-8", "replace")
    finally:
        wrapped.detach()  # it would close the file
