"""Two checkpoints compared bit for bit."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from chomp.checkpoint.arrays import read_numpy
from chomp.checkpoint.checkpointer import Checkpointer
from chomp.checkpoint.compatibility import changes
from chomp.checkpoint.contents import AVERAGE, ITEMS
from chomp.commands.checkpoints import open_run
from chomp.errors import ResumeError


def difference(
    left: Path, left_step: int | None, right: Path, right_step: int | None
) -> Iterator[str]:
    """Yield a line for whatever differs between two checkpoints: nothing if they are equal.

    Args:
        left: the first run.
        left_step: its checkpoint; None: the newest good one.
        right: the second run; may be the first.
        right_step: its checkpoint; None: the newest good one.

    Raises:
        ResumeError: one of them isn't there or is damaged.
    """
    (one, step), (two, other) = (_open(left, left_step), _open(right, right_step))
    kept = [place.has_average(at) for place, at in ((one, step), (two, other))]
    if kept[0] != kept[1]:
        yield f"average of the parameters: only in the {'first' if kept[0] else 'second'}"
    for item in (*ITEMS, AVERAGE) if all(kept) else ITEMS:
        yield from _arrays(read_numpy(one.path(step), item), read_numpy(two.path(other), item))
    before, after = one.restore_run(step), two.restore_run(other)
    for change in changes(before.progress._asdict(), after.progress._asdict()):
        yield f"count {change.key}: {change.old} and {change.new}"
    for change in changes(before.data_state, after.data_state):
        yield f"data place {change.key}: {change.old!r} and {change.new!r}"


def _open(run: Path, step: int | None) -> tuple[Checkpointer, int]:
    directory, _ = open_run(run)
    checkpoints = Checkpointer(directory.folder)
    found = checkpoints.choose("latest" if step is None else step).step
    if found is None:
        raise ResumeError(f"{run} has no checkpoint yet")
    return checkpoints, found


def _arrays(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> Iterator[str]:
    for name in dict.fromkeys([*left, *right]):
        a, b = left.get(name), right.get(name)
        if a is None or b is None:
            yield f"{name}: only in the {'second' if a is None else 'first'}"
        elif (a.dtype, a.shape) != (b.dtype, b.shape):
            yield f"{name}: {_kind(a)} and {_kind(b)}"
        elif count := int((_bits(a) != _bits(b)).any(axis=-1).sum()):
            # Equal infinities and NaNs have no distance.
            with np.errstate(invalid="ignore"):
                apart = np.abs(_wide(a) - _wide(b))
            largest = float(np.nanmax(apart)) if not np.isnan(apart).all() else float("nan")
            yield (
                f"{name}: {_kind(a)}, {count:,} of {a.size:,} elements differ, "
                f"by {largest:.3g} at most"
            )


def _kind(array: np.ndarray) -> str:
    return f"{array.dtype} {' x '.join(map(str, array.shape)) or 'scalar'}"


def _bits(array: np.ndarray) -> np.ndarray:
    """Return the bytes of each element: NaNs are equal if their bits are."""
    flat = np.ascontiguousarray(array).reshape(-1)
    return flat.view(np.uint8).reshape(flat.size, array.dtype.itemsize)


def _wide(array: np.ndarray) -> Any:
    # Integers in float64 would round; NumPy's longdouble has 64 bits of mantissa.
    return array.astype(np.longdouble if array.dtype.kind in "iub" else np.float64)
