"""The arrays of a checkpoint, through Orbax, each by its path in the tree that it belongs to."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore as ts
from etils import epath

from chomp.checkpoint.contents import AVERAGE, INDEX, PARAMS, TRAIN
from chomp.checkpoint.plain_path import plainly_named, temporary_folder
from chomp.types import TrainState

Flat = dict[str, Any]


def split(state: TrainState) -> dict[str, Flat]:
    """Return the items of a checkpoint: the parameters, their average, and everything else."""
    items = {PARAMS: by_path(state.params), TRAIN: by_path(_rest(state))}
    return items if state.average is None else items | {AVERAGE: by_path(state.average)}


def join(like: TrainState, items: dict[str, Flat]) -> TrainState:
    """Put the items together to a state again; without an average where they have none."""
    params, rest = unflatten(like.params, items[PARAMS]), unflatten(_rest(like), items[TRAIN])
    average = unflatten(like.average, items[AVERAGE]) if AVERAGE in items else None
    return TrainState(params, *rest, average=average)


def by_path(tree: Any) -> Flat:
    """Flatten to path -> leaf: independent of the classes that made the tree."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path).lstrip("."): leaf for path, leaf in leaves}


def unflatten(tree: Any, flat: Flat) -> Any:
    """Undo `by_path`, for a tree like this one."""
    return jax.tree.unflatten(jax.tree.structure(tree), [flat[name] for name in by_path(tree)])


def copy_to_host(items: dict[str, Flat]) -> dict[str, Flat]:
    """Copy arrays to the memory of the host, sharded as they are.

    The copies are made in the background, and before anything else overwrites the arrays: their
    buffers may be donated at once.
    """
    places = jax.tree.map(lambda leaf: leaf.sharding.with_memory_kind("pinned_host"), items)
    return jax.device_put(items, places)


def write_items(folder: Path, items: dict[str, Flat]) -> None:
    """Write each item to a folder of its name.

    Not with Orbax's asynchronous classes, which make their folders in the background as well: if
    one of these can't be made, the threads that are to write into it wait 300 s for the signal
    that it is there, and so does the end of the process.

    Raises:
        OSError, ValueError: the disk is full or can't be written to.
    """
    with plainly_named(folder) as place:
        for name, flat in items.items():
            with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
                checkpointer.save(place / name, args=ocp.args.StandardSave(flat))


def make_folders(folder: Path, items: dict[str, Flat]) -> None:
    """Make the folders that `write_share` writes to."""
    for name in items:
        (folder / name).mkdir(parents=True)


def write_share(folder: Path, items: dict[str, Flat]) -> None:
    """Write what this process holds of arrays that several share; `finish` is for one, after all.

    Orbax's own way of saving waits for all processes in a program of their devices, which must not
    run beside a training step, and without hearing of a process that failed.

    Raises:
        OSError, ValueError: the disk is full or can't be written to.
    """
    with plainly_named(folder) as place:
        for name, flat in items.items():
            with closing(ocp.StandardCheckpointHandler()) as handler:
                handler.save(epath.Path(place / name), args=ocp.args.StandardSave(flat))


def finish(folder: Path, items: dict[str, Flat]) -> None:
    """Put together what the processes wrote.

    Raises:
        OSError, ValueError: the disk is full or can't be written to.
    """
    with plainly_named(folder) as place:
        for name in items:
            _merge(place / name)


def check_index(folder: Path, items: dict[str, Flat]) -> None:
    """Check that each item's index has all of its arrays: what it lacks can't be read.

    Raises:
        OSError: one isn't there; names it.
    """
    with plainly_named(folder) as place:
        for name, flat in items.items():
            if not (place / name / INDEX).is_file():
                raise OSError(f"{name}/{INDEX} wasn't written: its arrays couldn't be read")
            base = {"driver": "file", "path": f"{place / name}/"}
            keys = ts.KvStore.open({"driver": "ocdbt", "base": base}).result().list().result()
            # An array has a key for its metadata, and one for each chunk of its values.
            stored = {key.rpartition(b"/")[0] for key in keys if not key.endswith(b"/.zarray")}
            stored &= {key.rpartition(b"/")[0] for key in keys if key.endswith(b"/.zarray")}
            for path, leaf in flat.items():
                if leaf.size and path.encode() not in stored:
                    raise OSError(f"{name}: {path} wasn't written")


def read_item(folder: Path, name: str, like: Flat) -> Flat:
    """Return the arrays of an item, shaped and placed as in `like` (shapes suffice).

    Where that names no place it is the first device: those of the saving run may not be there.
    """
    first = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    like = {
        path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding or first)
        for path, leaf in like.items()
    }
    with _opened(folder, name) as place, closing(ocp.StandardCheckpointHandler()) as handler:
        return handler.restore(epath.Path(place), args=ocp.args.StandardRestore(like))


def read_numpy(folder: Path, name: str) -> dict[str, np.ndarray]:
    """Return the arrays of an item, whatever devices they were on."""
    as_numpy = dict.fromkeys(shapes(folder, name), ocp.RestoreArgs(restore_type=np.ndarray))
    args = ocp.args.PyTreeRestore(restore_args=as_numpy)
    handler = ocp.PyTreeCheckpointHandler()
    with _opened(folder, name) as place, ocp.Checkpointer(handler) as checkpointer:
        return checkpointer.restore(place, args=args)


def shapes(folder: Path, name: str) -> dict[str, tuple[int, ...]]:
    """Return the shapes of an item's arrays."""
    with _opened(folder, name) as place:
        # Of the arrays alone: what several processes wrote has no metadata beside them.
        metadata = ocp.StandardCheckpointHandler().metadata(epath.Path(place))
    return {path: tuple(leaf.shape) for path, leaf in metadata.tree.items()}


@contextmanager
def _opened(folder: Path, name: str) -> Iterator[Path]:
    """Yield a path of an item with which Orbax can read it; nothing is written to `folder`.

    Where the index is missing, as after saves by earlier versions into folders with brackets in
    their path, it is merged anew, in a temporary folder of links to all that is there.
    """
    if (folder / name / INDEX).is_file():
        with plainly_named(folder) as place:
            yield place / name
        return
    with temporary_folder() as temporary:
        for path in _inside((folder / name).absolute()):
            (temporary / path.name).symlink_to(path)
        _merge(temporary)
        yield temporary


def _merge(place: Path) -> None:
    """Merge the indexes of an item's parts."""
    with closing(ocp.StandardCheckpointHandler()) as handler:
        handler.finalize(epath.Path(place))


def _inside(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _rest(state: TrainState) -> tuple[Any, ...]:
    return (state.opt_state, state.step, state.rejected, state.key)
