"""Compressed files, known by their first bytes rather than by their names."""

import gzip
import io
import sys
import zlib
from typing import Any, BinaryIO

GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
BUFFER_BYTES = 1 << 20
LARGEST_WINDOW = 1 << 31
"""Bytes of history that a zstd frame may need, with `zstd --long=31`; a decompressor takes what
the frame says."""


def broken_compression() -> tuple[type[Exception], ...]:
    """Return the errors of content that is broken; those of reading aren't among them."""
    zstandard = sys.modules.get("zstandard")  # without it nothing was decompressed by it
    more = () if zstandard is None else (zstandard.ZstdError,)
    return (EOFError, zlib.error, gzip.BadGzipFile, *more)


def decompressed(file: BinaryIO, name: str) -> BinaryIO:
    """Return what reads a file's text. A plain file with a name of a compressed one is plain."""
    head = file.read(len(ZSTD))
    file.seek(0)
    if head.startswith(ZSTD):
        return io.BufferedReader(ZstdFile(file), BUFFER_BYTES)
    if head.startswith(GZIP):
        return io.BufferedReader(gzip.GzipFile(fileobj=file), BUFFER_BYTES)  # pyright: ignore
    if not name.endswith((".gz", ".zst")) or head[:1] in (b"{", b"["):
        return file
    if name.endswith(".gz"):
        return io.BufferedReader(gzip.GzipFile(fileobj=file), BUFFER_BYTES)  # pyright: ignore
    return io.BufferedReader(ZstdFile(file), BUFFER_BYTES)


class ZstdFile(io.RawIOBase):
    """The text of a zstd file, of several frames perhaps.

    The library's own reader takes the end of a file that was cut off for the end of its text.
    """

    def __init__(self, file: BinaryIO):
        super().__init__()
        self._file = file
        self._frame: Any = None
        self._text = memoryview(b"")
        self._rest = b""  # of what was read, after the end of a frame

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
            self._frame = zstandard.ZstdDecompressor(max_window_size=LARGEST_WINDOW).decompressobj()
        self._text, self._rest = memoryview(self._frame.decompress(data)), b""
        if self._frame.eof:
            self._rest, self._frame = self._frame.unused_data, None
