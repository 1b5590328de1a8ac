"""The Hugging Face Hub: whether it can be reached, and its errors."""

from chomp.errors import DataError

REACH_SECONDS = 5.0


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
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=REACH_SECONDS)
    except hub_errors() as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        return f"the Hugging Face Hub ({constants.ENDPOINT}) can't be reached: {reason}"
    return ""


def require_hub(key: str, name: str) -> None:
    """Raise DataError if the hub, needed for `name`, can't be reached."""
    if reason := explain_unreachable():
        raise DataError(
            f"{key}: {name!r} is no local path, and {reason}; "
            "check the network, or give a local folder"
        )
