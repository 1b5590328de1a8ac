"""Checkpoints of a whole run, through Orbax: parameters, optimizer, data position, counts."""

import logging
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp

from chomp.errors import ResumeError
from chomp.types import Progress, TrainState

log = logging.getLogger(__name__)

PARAMS, TRAIN, DATA, META = "params", "train", "data", "meta"


class SavedRun(NamedTuple):
    """What a checkpoint holds besides arrays."""

    progress: Progress
    data_state: dict[str, Any]
    meta: dict[str, Any]
    """Configuration, versions and fingerprints of the run that saved it."""


class Checkpoints:
    """The checkpoints of one folder, by step. Parameters are an item of their own, so that they
    can be restored without the optimizer state.
    """

    def __init__(self, folder: Path, *, max_to_keep: int | None, async_save: bool):
        options = ocp.CheckpointManagerOptions(
            max_to_keep=max_to_keep,
            enable_async_checkpointing=async_save,
            # The step that a stop or the end of the run falls on is saved whatever the interval.
            save_interval_steps=1,
        )
        self.folder = folder
        self._manager = ocp.CheckpointManager(
            folder.absolute(), options=options, item_names=(PARAMS, TRAIN, DATA, META)
        )

    def steps(self) -> list[int]:
        """Return the steps that have a finished checkpoint, oldest first."""
        return sorted(self._manager.all_steps())

    def save(
        self,
        state: TrainState,
        progress: Progress,
        data_state: dict[str, Any],
        meta: dict[str, Any],
    ) -> None:
        """Save, in the background if the folder was opened so; copying the arrays is waited for."""
        if progress.step in self._manager.all_steps():
            return
        params, train = _split(state)
        self._manager.save(
            progress.step,
            args=ocp.args.Composite(
                **{
                    PARAMS: ocp.args.StandardSave(params),
                    TRAIN: ocp.args.StandardSave(train),
                    DATA: ocp.args.JsonSave(data_state),
                    META: ocp.args.JsonSave({"progress": progress._asdict(), **meta}),
                }
            ),
        )

    def set_aside_after(self, step: int) -> Path | None:
        """Move checkpoints behind `step` out of the way; return where, or None without any.

        A run resumed at an earlier step would otherwise leave them as the newest ones.
        """
        later = [number for number in self.steps() if number > step]
        if not later:
            return None
        names = (self.folder.with_name(f"{self.folder.name}-set-aside-{i}") for i in range(1, 1000))
        aside = next(path for path in names if not path.exists())
        aside.mkdir()
        for number in later:
            (self.folder / str(number)).rename(aside / str(number))
        self._manager.reload()
        return aside

    def resolve(self, wanted: str) -> int | None:
        """Return the step that `latest` or a number names; None: nothing was saved yet.

        Raises:
            ResumeError: there is no checkpoint of that number.
        """
        steps = self.steps()
        if wanted == "latest":
            return steps[-1] if steps else None
        if not wanted.isdecimal() or int(wanted) not in steps:
            found = ", ".join(map(str, steps)) or "none"
            raise ResumeError(
                f"no checkpoint of step {wanted!r} in {self.folder} (saved steps: {found}); "
                "give one of these or 'latest'"
            )
        return int(wanted)

    def restore_run(self, step: int) -> SavedRun:
        """Read what is small: counts, data position and the configuration of the saving run."""
        items = self._manager.restore(
            step,
            args=ocp.args.Composite(**{DATA: ocp.args.JsonRestore(), META: ocp.args.JsonRestore()}),
        )
        meta = dict(items[META])
        return SavedRun(Progress(**meta.pop("progress")), items[DATA], meta)

    def restore_state(self, step: int, like: TrainState) -> TrainState:
        """Return the saved state, its arrays shaped and placed as in `like` (shapes suffice)."""
        params, train = _split(like)
        items = self._manager.restore(
            step,
            args=ocp.args.Composite(
                **{PARAMS: ocp.args.StandardRestore(params), TRAIN: ocp.args.StandardRestore(train)}
            ),
        )
        return _join(like, items[PARAMS], items[TRAIN])

    def check_shapes(self, step: int, like: Any) -> None:
        """Check that the saved parameters have the paths and shapes of `like`.

        Raises:
            ResumeError: they don't; names the first difference.
        """
        # Not the manager's: it knows an item's kind only once the item was saved or restored.
        folder = self._manager.directory / str(step) / PARAMS
        metadata = ocp.StandardCheckpointHandler().metadata(folder).tree
        saved = {name: tuple(leaf.shape) for name, leaf in metadata.items()}
        wanted = {name: tuple(leaf.shape) for name, leaf in _by_path(like).items()}
        for name in sorted(saved.keys() | wanted.keys()):
            if saved.get(name) != wanted.get(name):
                raise ResumeError(
                    f"the parameter {name} has shape {saved.get(name)} in the checkpoint of step "
                    f"{step} and {wanted.get(name)} in this configuration: a changed model can't "
                    "go on with it; put the old values back, or start a new run in another folder"
                )

    def restore_params(self, step: int, like: Any) -> Any:
        """Return the saved parameters alone, shaped as in `like`."""
        items = self._manager.restore(
            step, args=ocp.args.Composite(**{PARAMS: ocp.args.StandardRestore(_by_path(like))})
        )
        return _like(like, items[PARAMS])

    def wait(self) -> None:
        """Wait for a save in progress."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait for a save in progress and release the folder."""
        self._manager.wait_until_finished()
        self._manager.close()


def _by_path(tree: Any) -> dict[str, Any]:
    """Flatten to path -> leaf: independent of the classes that made the tree."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path).lstrip("."): leaf for path, leaf in leaves}


def _like(tree: Any, flat: dict[str, Any]) -> Any:
    return jax.tree.unflatten(jax.tree.structure(tree), [flat[name] for name in _by_path(tree)])


def _split(state: TrainState) -> tuple[dict[str, Any], dict[str, Any]]:
    rest = (state.opt_state, state.step, state.rejected, state.key)
    return _by_path(state.params), _by_path(rest)


def _join(like: TrainState, params: dict[str, Any], train: dict[str, Any]) -> TrainState:
    rest = _like((like.opt_state, like.step, like.rejected, like.key), train)
    return TrainState(_like(like.params, params), *rest)
