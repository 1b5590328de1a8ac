"""Files at an HTTP URL, read in ranges whose answers are checked before a byte counts."""

import io
import re
import time
from collections.abc import Callable
from typing import Any

from chomp.data.sources.read_policy import ReadPolicy
from chomp.errors import DataError

RANGE_BYTES = 4 << 20
"""Asked for at once: many, so that few answers are waited for, and few enough that a connection
isn't idle while their documents are trained on."""
TIMEOUTS_PER_RANGE = 10
"""A range may take so many times `data.timeout_sec`, if bytes keep coming."""

CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+)")


class BadAnswerError(ConnectionError):
    """An answer that isn't the bytes asked for; worth another try."""

    def __init__(self, message: str, response: Any):
        super().__init__(message)
        self.response = response


class HttpFile:
    """A file at a URL: `seek` and `read`, each read a request of its own.

    After a failed read the position is the old one, and what had arrived by then is given out
    first: a connection that always breaks off gets on all the same.

    Args:
        name: the file's name in messages.
        locate: returns the URL and the headers to send; called before the first request.
        versions: length and entity tag (or "") by URL, where known; completed here.
        reading: the timeout, and whether to go on at all.
    """

    def __init__(
        self,
        name: str,
        locate: Callable[[], tuple[str, dict[str, str]]],
        versions: dict[str, tuple[int, str]],
        reading: ReadPolicy,
    ):
        self._name = name
        self._locate = locate
        self._versions = versions
        self._reading = reading
        self._target: tuple[str, dict[str, str]] | None = None
        self._position = 0
        self._arrived = bytearray()
        self._arrived_at = 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position; the end isn't known before a request."""
        if whence == io.SEEK_END:
            offset += self._length()
        self._position = offset
        return offset

    def read(self, count: int) -> bytes:
        """Read at most `count` bytes; fewer also before the end.

        Raises DataError if the file is not the one that was read before; for all else an error
        that may go away.
        """
        if self._arrived_at != self._position or not self._arrived:
            self._request(self._position, min(count, RANGE_BYTES))
        data = bytes(self._arrived[:count])
        del self._arrived[:count]
        self._position = self._arrived_at = self._position + len(data)
        return data

    def close(self) -> None:
        """Do nothing: no connection is held between reads."""

    def _length(self) -> int:
        url, _ = self._located()
        if url not in self._versions:
            self._request(0, 1)
        return self._versions[url][0]

    def _located(self) -> tuple[str, dict[str, str]]:
        if self._target is None:
            self._target = self._locate()
        return self._target

    def _request(self, begin: int, count: int) -> None:
        """Receive `count` bytes from `begin` on, or what there is."""
        from huggingface_hub import get_session

        self._arrived.clear()
        self._arrived_at = begin
        url, headers = self._located()
        length = self._versions[url][0] if url in self._versions else begin + count
        count = min(count, length - begin)
        if count <= 0:
            return
        # A compressed answer's bytes would be those of no known position.
        headers = headers | {
            "Range": f"bytes={begin}-{begin + count - 1}",
            "Accept-Encoding": "identity",
        }
        with get_session().stream(
            "GET", url, headers=headers, timeout=self._reading.timeout, follow_redirects=True
        ) as response:
            self._receive(response, self._expected(url, response, begin, count))

    def _expected(self, url: str, response: Any, begin: int, count: int) -> int:
        """Check an answer's headers; return how many bytes it must bring."""
        status = response.status_code
        if status not in (206, 416):  # 200 would be bytes from the start, or a proxy's own page
            raise BadAnswerError(f"status {status} {response.reason_phrase}", response)
        if (encoding := response.headers.get("content-encoding", "identity")) != "identity":
            raise BadAnswerError(f"answered in the encoding {encoding!r}", response)
        stated = response.headers.get("content-range", "")
        match = CONTENT_RANGE.fullmatch(stated)
        if match is None or (status == 206) != (match[1] is not None):
            raise BadAnswerError(f"status {status} with the range {stated!r}", response)
        total = int(match[3])
        self._compare_version(url, total, response.headers.get("etag", ""))
        first, end = (int(match[1]), int(match[2]) + 1) if status == 206 else (begin, total)
        if first != begin or not (begin < end <= begin + count or status == 416):
            raise BadAnswerError(f"asked for the bytes from {begin}, got {stated!r}", response)
        if status == 416 and total > begin:
            raise BadAnswerError(f"status 416, but the file has {total} bytes", response)
        return max(0, end - begin)

    def _compare_version(self, url: str, length: int, tag: str) -> None:
        tag = "" if tag.startswith("W/") else tag  # weak tags may differ for equal bytes
        known, known_tag = self._versions.get(url, (length, tag))
        self._versions[url] = (known, known_tag or tag)
        if known != length:
            raise DataError(
                f"{self._name}: its length changed from {known} to {length} bytes while it was read"
            )
        if tag and known_tag and tag != known_tag:
            raise DataError(
                f"{self._name}: its content changed while it was read: the server's tag for it "
                f"was {known_tag} and is {tag}"
            )

    def _receive(self, response: Any, expected: int) -> None:
        begin, limit = time.monotonic(), TIMEOUTS_PER_RANGE * self._reading.timeout
        for chunk in response.iter_raw():
            if len(self._arrived) + len(chunk) > expected:
                self._arrived.clear()
                raise BadAnswerError("answered with more bytes than asked for", response)
            self._arrived += chunk
            if self._reading.closing.is_set():
                raise ConnectionAbortedError("the data was closed")
            if time.monotonic() - begin > limit:
                raise TimeoutError(f"{len(self._arrived)} of {expected} bytes in {limit:.0f} s")
        if len(self._arrived) < expected:
            raise BadAnswerError(
                f"the answer ended after {len(self._arrived)} of {expected} bytes", response
            )
