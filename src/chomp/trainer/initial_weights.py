"""Parameters to begin with that another run has trained (`train.init_from`)."""

from pathlib import Path
from typing import Any, NamedTuple

from chomp.checkpoint.arrays import by_path, shapes
from chomp.checkpoint.checkpointer import Checkpointer, SavedRun
from chomp.checkpoint.compatibility import changes
from chomp.checkpoint.contents import PARAMS
from chomp.config import Config, config_from_mapping
from chomp.errors import ConfigError, ResumeError
from chomp.run.record import Parent, read_record
from chomp.run.run_folder import RunFolder, run_path, split_step
from chomp.trainer.components import Components

KEY = "train.init_from"


class InitialWeights(NamedTuple):
    """A good checkpoint of another run, whose parameters a new run can begin with."""

    checkpoints: Checkpointer
    step: int
    parent: Parent

    def load(self, like: Any) -> Any:
        """Return the parameters, shaped and placed as in `like`."""
        return self.checkpoints.restore_params(self.step, like)

    def __str__(self) -> str:
        return f"{self.parent.folder} after step {self.step}"


def located(config: Config) -> Config:
    """Return the configuration with `train.init_from` as a path that is right in any folder.

    Raises:
        ConfigError: it can't be one.
    """
    if config.train.init_from is None:
        return config
    path, step = split_step(config.train.init_from)
    try:
        value = f"{run_path(path)}:{step}"
    except ResumeError as error:
        raise ConfigError([f"{KEY}: {error}"]) from error
    train = config.train.model_copy(update={"init_from": value})
    return config.model_copy(update={"train": train})


def open_weights(components: Components, begun: Parent | None = None) -> InitialWeights | None:
    """Return what `train.init_from` names; None: the run begins with fresh parameters.

    Args:
        components: of the new run.
        begun: what an earlier start of it began from: `latest` stays the step that it was then.

    Raises:
        ConfigError: there is no such run, or its parameters or its tokenizer don't fit.
        ResumeError: it has no such checkpoint that is good.
    """
    value = components.config.train.init_from
    if value is None:
        return None
    path, step = split_step(value)
    try:
        folder = RunFolder(run_path(path))
        folder.require_run()
        config = config_from_mapping(folder.read_resolved())
    except (ResumeError, ConfigError) as error:
        raise ConfigError([f"{KEY}: {error}"]) from error
    checkpoints = Checkpointer(folder.inside(config.checkpoint.root_dir or "checkpoints"))
    home = str(folder.path.resolve())
    if step == "latest" and begun and (begun.kind, begun.folder) == ("init", home):
        step = str(begun.step)
    choice = checkpoints.choose(step)
    if choice.step is None:
        raise ConfigError([f"{KEY}: {path} has no checkpoint yet; train it first"])
    saved = checkpoints.restore_run(choice.step)
    _check_tokenizer(folder, saved, components)
    _check_parameters(folder, checkpoints.path(choice.step), saved, components)
    try:
        record = read_record(folder.record)
    except ValueError as error:
        raise ConfigError([f"{KEY}: {folder.record} is broken ({error})"]) from error
    run = record.run if record else ""
    parent = Parent(run, home, choice.step, "init")
    return InitialWeights(checkpoints, choice.step, parent)


def _check_tokenizer(folder: RunFolder, saved: SavedRun, components: Components) -> None:
    if saved.meta["identity"]["data"]["tokens"] == components.tokenizer.fingerprint:
        return
    there = saved.meta["config"]["data"]["tokenizer"]
    here = components.given.data.model_dump(mode="json")["tokenizer"]
    found = _differences("data.tokenizer", there, here)
    raise ConfigError(
        [
            f"{KEY}: {folder.path} was trained with another tokenizer, so that its embeddings "
            f"stand for other texts{': ' if found else ''}{found}; use its own, which is in "
            f"{folder.tokenizer}"
        ]
    )


def _check_parameters(
    folder: RunFolder, checkpoint: Path, saved: SavedRun, components: Components
) -> None:
    there = shapes(checkpoint, PARAMS)
    here = {
        name: tuple(leaf.shape) for name, leaf in by_path(components.program.shapes.params).items()
    }
    if there == here:
        return
    name = next(name for name in sorted({*there, *here}) if there.get(name) != here.get(name))
    found = _differences("model", saved.meta["config"]["model"], _model(components.given))
    raise ConfigError(
        [
            f"{KEY}: the parameters of {folder.path} don't fit: {name} has the shape "
            f"{there.get(name)} there and {here.get(name)} here{' (' if found else ''}{found}"
            f"{')' if found else ''}; take over its section `model`"
        ]
    )


def _model(config: Config) -> dict[str, Any]:
    return config.model_dump(mode="json")["model"]


def _differences(section: str, there: dict[str, Any], here: dict[str, Any]) -> str:
    found = changes({section: there}, {section: here})
    return ", ".join(f"{each.key} is {each.old!r} there and {each.new!r} here" for each in found)
