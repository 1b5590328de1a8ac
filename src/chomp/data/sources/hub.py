"""The Hugging Face Hub: whether it can be reached, and its errors."""

import functools
import itertools
from collections.abc import Callable
from typing import Any, TypeVar

from chomp.data.sources.read_policy import ReadPolicy, retry_or_raise

REACH_SECONDS = 5.0

T = TypeVar("T")


def hub_errors() -> tuple[type[BaseException], ...]:
    """Return the errors of requests to the hub, the network's and the server's."""
    from huggingface_hub import errors

    # The HTTP library's base class; which library it is depends on the version.
    bases = [base for base in errors.HfHubHTTPError.__mro__ if base.__name__ == "HTTPError"]
    return (OSError, *bases)


def explain_unreachable() -> str:
    """Return why the hub can't be reached; empty if it can.

    The hub's own client would repeat each request for half a minute.
    """
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=REACH_SECONDS)
    except hub_errors() as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        return f"the Hugging Face Hub ({constants.ENDPOINT}) can't be reached: {reason}"
    return ""


def is_outage(error: BaseException) -> bool:
    """Whether the network or the server failed, rather than what was asked for is wrong."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    response = getattr(error, "response", None)
    if response is not None:
        return response.status_code in (408, 429) or response.status_code >= 500
    # `datasets` turns a failed download of the dataset's card into a FileNotFoundError.
    hidden = "LocalEntryNotFoundError" in f"{type(error).__name__} {error}"
    return hidden or not isinstance(error, FileNotFoundError | PermissionError)


def ask_hub(reading: ReadPolicy, key: str, name: str, ask: Callable[[], T]) -> T:
    """Return what `ask` does, which needs the hub for `name`; an outage is waited for.

    Raises NetworkError if that was in vain, DataError in offline mode, and what `ask` raises.
    """
    limit_waiting(reading.timeout)
    for attempt in itertools.count():
        try:
            if reason := explain_unreachable():
                raise ConnectionError(f"{name!r} is no local path, and {reason}")
            return ask()
        except hub_errors() as error:
            if not is_outage(error):
                raise
            retry_or_raise(reading, attempt, f"{key}: {name!r}", error)
    raise AssertionError


def limit_waiting(seconds: float) -> None:
    """Let requests of the hub's own client that have no timeout of their own have this one."""
    from huggingface_hub import set_client_factory

    kind, hooks = _own_client()

    def limit(request: Any) -> None:
        timeouts = request.extensions.setdefault("timeout", {})
        for name in ("connect", "read", "write", "pool"):
            if timeouts.get(name) is None:
                timeouts[name] = seconds

    def make_client() -> Any:
        all_hooks = {**hooks, "request": [*hooks["request"], limit]}
        return kind(event_hooks=all_hooks, follow_redirects=True, timeout=None)

    set_client_factory(make_client)


@functools.cache
def _own_client() -> tuple[type[Any], dict[str, list[Any]]]:
    """Return the class and the hooks of the client that the hub makes for itself."""
    from huggingface_hub import get_session

    client = get_session()
    return type(client), client.event_hooks
