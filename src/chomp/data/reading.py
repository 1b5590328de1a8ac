"""How a corpus is read: what is skipped, and when a failed read is repeated."""

import logging
import threading
from typing import NamedTuple

from chomp.errors import DataError

log = logging.getLogger(__name__)


class Reading(NamedTuple):
    """How a corpus is read."""

    text_key: str
    skip_broken: bool
    max_retries: int
    retry_delay: float
    """Seconds before the first retry; doubled for each further one."""
    closing: threading.Event
    """Set when nobody wants the documents any more: ends waiting for a retry."""


def retry_or_raise(reading: Reading, attempt: int, place: str, error: BaseException) -> None:
    """Wait before retry number `attempt` + 1; raise DataError if that is one too many."""
    reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    if attempt >= reading.max_retries or reading.closing.is_set():
        raise DataError(
            f"{place}: reading failed, and again in {attempt} retries ({reason}); data.max_retries "
            "and data.retry_delay_sec say how often and when to retry"
        ) from error
    delay = reading.retry_delay * 2**attempt
    log.warning(
        "%s: reading failed (%s); retry %d of %d in %.1f s",
        *(place, reason, attempt + 1, reading.max_retries, delay),
    )
    reading.closing.wait(delay)
