"""Compressed files, known by their first bytes rather than by their names."""

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
    return (EOFError, zlib.error, *more)


def decompressed(file: BinaryIO, name: str) -> BinaryIO:
    """Return what reads a file's text. A plain file with a name of a compressed one is plain."""
    head = file.read(len(ZSTD))
    file.seek(0)
    is_gzip, is_zstd = head.startswith(GZIP), head.startswith(ZSTD)
    if not (is_gzip or is_zstd):
        if not name.endswith((".gz", ".zst")) or head[:1] in (b"{", b"["):
            return file
        is_gzip = name.endswith(".gz")
    return io.BufferedReader(DecompressedFile(file, is_gzip=is_gzip), BUFFER_BYTES)


class DecompressedFile(io.RawIOBase):
    """The text of a gzip or zstd file, of several members or frames perhaps.

    All that comes before a broken place is read: Python's own reader of gzip loses some of it, and
    the library's of zstd takes the end of a file that was cut off for the end of its text.
    """

    def __init__(self, file: BinaryIO, *, is_gzip: bool):
        super().__init__()
        self._file, self._is_gzip = file, is_gzip
        self._frame: Any = None
        self._frames = 0
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
        if self._frame is None:
            if self._is_gzip and self._frames and not (data := data.lstrip(b"\0")):
                self._rest = b""  # it was padding, as of tapes
                return
            self._frame = self._new_frame()
            self._frames += 1
        self._text, self._rest = memoryview(self._frame.decompress(data)), b""
        if self._frame.eof:
            self._rest, self._frame = self._frame.unused_data, None

    def _new_frame(self) -> Any:
        if self._is_gzip:
            return zlib.decompressobj(zlib.MAX_WBITS | 16)
        import zstandard

        return zstandard.ZstdDecompressor(max_window_size=LARGEST_WINDOW).decompressobj()
