"""The policy for reading a corpus: what is skipped, and when a failed read is repeated."""

import itertools
import logging
import threading
from typing import NamedTuple

from chomp.config.data import DataConfig
from chomp.errors import NetworkError
from chomp.system.console import LOG, Console

log = logging.getLogger(__name__)

LONGEST_ASKED_DELAY = 120.0
"""Seconds: a server that asks for more time than this is asked again sooner."""


class ReadPolicy(NamedTuple):
    """Settings for reading a corpus."""

    text_key: str
    skip_broken: bool
    max_retries: int
    retry_delay: float
    """Seconds before the first retry; doubled for each further one."""
    timeout: float
    """Seconds without a byte after which a connection counts as broken."""
    closing: threading.Event
    """Set when nobody wants the documents any more: ends waiting for a retry."""
    console: Console = LOG
    """Shows warnings."""
    corpus: str = "the corpus"
    """Name of the corpus in messages."""

    def silent(self) -> "ReadPolicy":
        """Return the same without warnings, for another stream of the same documents."""
        return self._replace(console=Console())


def read_policy(config: DataConfig, closing: threading.Event, console: Console = LOG) -> ReadPolicy:
    """Return how the section `data` says to read."""
    return ReadPolicy(
        config.text_key,
        config.on_error == "skip",
        config.max_retries,
        config.retry_delay_sec,
        config.timeout_sec,
        closing,
        console,
    )


class Retries:
    """Counts the reads that this process repeated, in all threads."""

    def __init__(self):
        self._numbers = itertools.count(1)  # `next` of it is one step under Python's lock
        self.count = 0

    def add(self) -> None:
        """Count one more."""
        self.count = next(self._numbers)


RETRIES = Retries()


def read_retries() -> int:
    """Return how often this process read something again."""
    return RETRIES.count


def retry_or_raise(reading: ReadPolicy, attempt: int, place: str, error: BaseException) -> None:
    """Wait before retry number `attempt` + 1; raise NetworkError if that is one too many."""
    reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    if attempt >= reading.max_retries or reading.closing.is_set():
        raise NetworkError(
            f"{place}: reading failed, and again in {attempt} retries ({reason}); data.max_retries "
            "and data.retry_delay_sec say how often and when to retry"
        ) from error
    RETRIES.add()
    delay = max(reading.retry_delay * 2**attempt, asked_delay(error))
    log.warning(
        "%s: reading failed (%s); retry %d of %d in %.1f s",
        *(place, reason, attempt + 1, reading.max_retries, delay),
    )
    reading.closing.wait(delay)


def asked_delay(error: BaseException) -> float:
    """Return the seconds that the server's answer asks to wait (Retry-After); 0 if it doesn't."""
    response = getattr(error, "response", None)
    asked = "" if response is None else response.headers.get("retry-after", "")
    # The header may be a date instead: clocks differ, so the usual delay does for that.
    return min(float(asked), LONGEST_ASKED_DELAY) if asked.isdecimal() else 0.0
