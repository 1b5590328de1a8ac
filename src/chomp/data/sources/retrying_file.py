"""Remote files whose reads are repeated, from the exact byte, when the network fails."""

import io
import itertools
from collections.abc import Callable
from typing import Any

from chomp.data.sources.read_policy import ReadPolicy, retry_or_raise
from chomp.errors import DataError

BUFFER_BYTES = 1 << 20


class RetryingFile(io.RawIOBase):
    """A binary file that is opened again when reading it fails.

    Waits longer before each retry; a read that succeeds starts the count anew. Raises NetworkError
    when `data.max_retries` are used up, DataError if the file's length has changed.

    Args:
        open_file: opens it; called in the first read and after each failure.
        name: the file's name in messages.
        transient: the errors that are worth another try.
        reading: how often and when to retry.
    """

    def __init__(
        self,
        open_file: Callable[[], Any],
        name: str,
        transient: tuple[type[BaseException], ...],
        reading: ReadPolicy,
    ):
        super().__init__()
        self._open_file = open_file
        self._name = name
        self._transient = transient
        self._reading = reading
        self._file: Any = None
        self._position = 0
        self._size: int | None = None

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def seekable(self) -> bool:
        """Return that any position can be gone to."""
        return True

    def tell(self) -> int:
        """Return the position in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position in bytes; nothing is read yet."""
        if whence == io.SEEK_CUR:
            offset += self._position
        elif whence == io.SEEK_END:
            offset += self._retried(lambda file: self._known_size(file))
        self._position = max(0, offset)
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        """Read at most as many bytes as `buffer` holds; 0 at the end."""
        view = memoryview(buffer).cast("B")
        data = self._retried(lambda file: self._read(file, len(view)))
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _read(self, file: Any, count: int) -> bytes:
        size = self._known_size(file)
        file.seek(self._position)
        data = file.read(count)
        if not data and self._position < size and count:
            raise ConnectionError(f"no data at byte {self._position} of {size}")
        return data

    def _known_size(self, file: Any) -> int:
        if self._size is None:
            self._size = file.seek(0, io.SEEK_END)
            assert self._size is not None
        return self._size

    def _opened(self) -> Any:
        if self._file is None:
            file = self._open_file()
            size = file.seek(0, io.SEEK_END)
            if self._size is not None and size != self._size:
                raise DataError(
                    f"{self._name}: its length changed from {self._size} to {size} bytes "
                    "while it was read"
                )
            self._file = file
        return self._file

    def _retried(self, act: Callable[[Any], Any]) -> Any:
        for attempt in itertools.count():
            try:
                return act(self._opened())
            except self._transient as error:
                self._file = None
                retry_or_raise(
                    self._reading, attempt, f"{self._name}, byte {self._position}", error
                )

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None
        super().close()
