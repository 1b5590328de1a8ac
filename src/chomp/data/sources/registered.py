"""Data sources of the user's own."""

from collections.abc import Callable

from chomp.config import DataConfig
from chomp.config.registry import SOURCES
from chomp.data.sources.local import Corpus


def register_source(name: str, open_source: Callable[[DataConfig], Corpus]) -> None:
    """Let `data.backend` name a source of documents.

    Args:
        name: that stands for it.
        open_source: returns its corpus. Shards and rows come in the same order each time: a resume
            goes on at the row where the run stopped.

    Raises:
        ConfigError: the name can't be registered.
    """
    SOURCES.register(name, open_source)
