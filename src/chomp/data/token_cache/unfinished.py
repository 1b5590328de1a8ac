"""A folder that a corpus is being prepared in, and the part that is finished."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from chomp.data.corpus import TextSplits
from chomp.data.token_cache.files import (
    PROGRESS,
    Manifest,
    damage,
    manifest_from_values,
    read_json,
    write_json,
)
from chomp.errors import DataError
from chomp.system.folder_lock import lock

log = logging.getLogger(__name__)

WINDOW_BYTES = "shuffle_buffer_bytes"
"""Of a plan: bytes of a window of shuffling, out of which the evaluation documents were taken."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep others from preparing in a folder. Raises DataError if one does."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if not lock(descriptor):
            log.warning(
                "%s: its file system has no locks: start no second chomp data prepare there", folder
            )
        yield
    except BlockingIOError as error:
        raise DataError(f"{folder}: another chomp data prepare is writing to it") from error
    finally:
        os.close(descriptor)


class UnfinishedCache(NamedTuple):
    """The finished part of a corpus."""

    manifest: Manifest
    evaluated: bool
    """The evaluation documents are written."""
    state: dict[str, Any] | None
    """State of the text stream at the start of the next shard."""

    def save(self, out: Path) -> None:
        """Note it in the folder. Raises DiskError if it can't be written."""
        write_json(out / PROGRESS, self._asdict() | {"manifest": self.manifest.as_values()})


def read_unfinished(out: Path, plan: dict[str, Any], texts: TextSplits) -> UnfinishedCache:
    """Return what is there of the corpus. Raises DataError if it's another, or something else."""
    path = out / PROGRESS
    if not path.exists():
        if others := sorted({entry.name for entry in out.iterdir()} - {PROGRESS + ".tmp"}):
            raise DataError(f"{out}: not empty (it holds {others[0]}); give a new folder")
        own = texts.own.shards if texts.own else ()
        sources, theirs = ([shard.name for shard in s] for s in (texts.corpus.shards, own))
        unfinished = UnfinishedCache(Manifest(plan, sources, theirs, [], [], 0, False), False, None)
        unfinished.save(out)
        return unfinished
    values = read_json(path)
    try:
        manifest = manifest_from_values(values["manifest"], path)
        unfinished = UnfinishedCache(manifest, values["evaluated"], values["state"])
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: damaged ({error!r}); delete {out} and start again") from error
    check_same(out, manifest.plan, plan)
    if lost := [line for s in manifest.all_shards for line in damage(out, s, read=False)]:
        raise DataError("\n".join([*lost[:10], f"delete {out} and prepare it again"]))
    return unfinished


def check_same(out: Path, then: dict[str, Any], now: dict[str, Any]) -> None:
    """Compare two plans. Raises DataError that lists what differs."""
    old, new = dict(_flat(then)), dict(_flat(now))
    if (window := f"evaluation.{WINDOW_BYTES}") not in old:  # of an earlier version: none
        new.pop(window, None)
    differing = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    if differing:
        lines = [
            f"{out}: holds another corpus, which stays as it is:",
            *(f"  {key}: there {old.get(key)!r}, now {new.get(key)!r}" for key in differing[:10]),
            "give another folder, or delete this one",
        ]
        raise DataError("\n".join(lines))


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
