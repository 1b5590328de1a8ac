"""Folders that `save_to_disk` of `datasets` wrote: their Arrow files, in order."""

import json
import os
from typing import Any, NamedTuple

from chomp.errors import DataError

STATE, SPLITS = "state.json", "dataset_dict.json"


class SavedSplit(NamedTuple):
    """A split's files in such a folder."""

    files: list[str]
    splits: list[str]
    """All that there are; the files are none if the split isn't among them."""


def is_saved_dataset(folder: str) -> bool:
    """Return whether `save_to_disk` wrote it."""
    return any(os.path.exists(os.path.join(folder, name)) for name in (STATE, SPLITS))


def find_saved_split(folder: str, split: str) -> SavedSplit:
    """Find the files of a split. Raises DataError if the folder isn't as it was written."""
    if not os.path.exists(os.path.join(folder, SPLITS)):
        state = _read(folder, STATE)
        # A set that was never split has no name for it.
        name = state.get("_split") or "train"
        return SavedSplit(_files(folder, state) if name == split else [], [name])
    splits = _read(folder, SPLITS).get("splits")
    if not isinstance(splits, list) or not all(isinstance(name, str) for name in splits):
        raise DataError(f"data.hf_dataset: {os.path.join(folder, SPLITS)} is damaged")
    if split not in splits:
        return SavedSplit([], splits)
    inner = os.path.join(folder, split)
    return SavedSplit(_files(inner, _read(inner, STATE)), splits)


def _files(folder: str, state: dict[str, Any]) -> list[str]:
    try:
        names = [os.path.basename(file["filename"]) for file in state["_data_files"]]
    except (KeyError, TypeError) as error:
        path = os.path.join(folder, STATE)
        raise DataError(f"data.hf_dataset: {path} names no files ({error!r})") from error
    if state.get("_indices_data_files"):
        raise DataError(
            f"data.hf_dataset: {folder} was saved with a selection of rows; call "
            "flatten_indices() before save_to_disk()"
        )
    return [os.path.join(folder, name) for name in names]


def _read(folder: str, name: str) -> dict[str, Any]:
    path = os.path.join(folder, name)
    try:
        with open(path, encoding="utf-8") as file:
            values = json.load(file)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"data.hf_dataset: {path} can't be read: {error}") from error
    if not isinstance(values, dict):
        raise DataError(f"data.hf_dataset: {path} can't be read: not a mapping")
    return values
