"""The key-value store of a run's processes, which process 0 keeps."""

from typing import Any

from jax.errors import JaxRuntimeError

ROOT = "chomp"


class KeyValueStore:
    """Texts by their keys, for all processes to read and write, from any thread.

    Args:
        client: that of `jax.distributed`.
    """

    def __init__(self, client: Any):
        self._client = client

    def put(self, key: str, text: str, *, replace: bool = False) -> None:
        """Write a text.

        Raises:
            JaxRuntimeError: process 0 can't be reached, or the key is there.
        """
        self._client.key_value_set(f"{ROOT}/{key}", text, allow_overwrite=replace)

    def take(self, key: str, seconds: float) -> str | None:
        """Return a text, waiting up to so many seconds for it; None: it isn't there.

        Raises:
            JaxRuntimeError: process 0 can't be reached.
        """
        try:
            return self._client.blocking_key_value_get(f"{ROOT}/{key}", int(1000 * seconds))
        except JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" in str(error):
                return None
            raise

    def below(self, key: str) -> dict[str, str]:
        """Return all texts below a key, by the rest of their keys.

        Raises:
            JaxRuntimeError: process 0 can't be reached.
        """
        prefix = f"{ROOT}/{key}/"
        return {
            name.removeprefix(prefix): text for name, text in self._client.key_value_dir_get(prefix)
        }

    def drop(self, key: str) -> None:
        """Delete a text and all below its key.

        Raises:
            JaxRuntimeError: process 0 can't be reached.
        """
        self._client.key_value_delete(f"{ROOT}/{key}")
