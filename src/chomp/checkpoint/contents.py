"""Names of the files that a checkpoint needs, so that a run can go on from it."""

from collections.abc import Iterable

RECORD = "run.json"
PARAMS, TRAIN, AVERAGE = "params", "train", "average"
ITEMS = (PARAMS, TRAIN)
"""The items of every checkpoint; with `train.ema` there is `AVERAGE` as well."""
INDEX = "manifest.ocdbt"
"""File of an item's folder: the index of its arrays, merged from those of the saving processes."""
PART = "ocdbt.process_"
"""In front of the names of folders that hold what one process has saved, with an index of it."""
METADATA = "_METADATA"


def what_is_missing(files: Iterable[str]) -> str | None:
    """Return the first file that a checkpoint of these files can't be read without, or None.

    An item's index may be missing where its parts have theirs: it can be merged anew.
    """
    there = set(files)
    average = any(name.startswith(f"{AVERAGE}/") for name in there)
    items = (*ITEMS, AVERAGE) if average else ITEMS
    needed = [RECORD, *(f"{item}/{METADATA}" for item in items)]
    for item in items:
        parts = {name.split("/")[1] for name in there if name.startswith(f"{item}/{PART}")}
        if not parts:
            needed.append(f"{item}/{INDEX}")
        needed += [f"{item}/{part}/{INDEX}" for part in sorted(parts)]
    return next((name for name in needed if name not in there), None)
