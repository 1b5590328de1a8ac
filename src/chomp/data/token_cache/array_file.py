"""A one-dimensional array in a NumPy file, read in parts.

Not mapped: where somebody cuts a mapped file short, the next look at it ends the process.
"""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np

from chomp.data.sources.local_file import open_regular
from chomp.errors import DataError

ADVICE = "put the file back, or prepare the corpus again"


class ArrayFile:
    """An open file of this many values of this type.

    Raises DataError if it isn't that.
    """

    def __init__(self, path: Path, dtype: np.dtype, size: int):
        self._path, self._dtype, self._size = path, dtype, size
        try:
            # Closed when nobody reads from it any more.
            self._file = open_regular(str(path))
            version = np.lib.format.read_magic(self._file)
            read_header = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, _, found = read_header(self._file)
            self._start = self._file.tell()
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{path}: can't be read: {error}; {ADVICE}") from error
        if found != dtype or shape != (size,):
            raise DataError(f"{path}: damaged (not {size} of {dtype}); {ADVICE}")

    def read(self, start: int, count: int) -> np.ndarray:
        """Return `count` values from the one numbered `start` on.

        Raises DataError if they aren't there.
        """
        size = count * self._dtype.itemsize
        place = self._start + start * self._dtype.itemsize
        if start + count > self._size:
            raise DataError(f"{self._path}: damaged (it ends before {start + count}); {ADVICE}")
        try:
            data = os.pread(self._file.fileno(), size, place)
            while len(data) < size:  # the system gives at most 2 GB at once
                more = os.pread(self._file.fileno(), size - len(data), place + len(data))
                if not more:
                    raise DataError(f"{self._path}: it was cut short meanwhile; {ADVICE}")
                data += more
        except OSError as error:
            raise DataError(f"{self._path}: can't be read: {error.strerror}; {ADVICE}") from error
        return np.frombuffer(data, self._dtype)

    def read_all(self) -> np.ndarray:
        """Return all values."""
        return self.read(0, self._size)


class ArraySlice:
    """A part of an array file, whose values are read when an array is made of it.

    Of most documents of a process the lengths are all that is needed: others lay them out.
    """

    __slots__ = ("_count", "_file", "_start")

    def __init__(self, file: ArrayFile, start: int, count: int):
        self._file, self._start, self._count = file, start, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, part: slice) -> "ArraySlice":
        start, stop, _ = part.indices(self._count)
        return ArraySlice(self._file, self._start + start, max(0, stop - start))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        values = self._file.read(self._start, self._count)
        return values if dtype is None else values.astype(dtype)

    def tolist(self) -> list[int]:
        """Return the values."""
        return np.asarray(self).tolist()


def header_of(array: np.ndarray) -> bytes:
    """Return what a NumPy file of an array begins with."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    return header.getvalue()
