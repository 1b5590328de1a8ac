"""Parameters to begin with that another run has trained (`train.init_from`)."""

from pathlib import Path
from typing import Any, NamedTuple

from chomp.checkpoint.arrays import by_path, shapes
from chomp.checkpoint.checkpointer import Checkpointer, SavedRun
from chomp.checkpoint.compatibility import changes
from chomp.checkpoint.contents import PARAMS
from chomp.checkpoint.directory import damage_lines
from chomp.config import Config, config_from_mapping
from chomp.data.tokenizers.huggingface import TOKENIZER_FILE, read_tokenizer_file
from chomp.errors import ConfigError, ResumeError
from chomp.models.megalodon.model import Megalodon
from chomp.models.megalodon.weight_files import FILE, read_weights
from chomp.run.record import Parent, read_record
from chomp.run.run_folder import RunFolder, run_path, split_step
from chomp.system.console import Console
from chomp.trainer.components import Components

KEY = "train.init_from"
PROBE = "def main(args):\n    return [f'{a!r}' for a in args]  # naïve café, 東京\n"
"""Text that another tokenizer would encode otherwise."""


class CheckpointWeights(NamedTuple):
    """A good checkpoint of another run, whose parameters a new run can begin with."""

    checkpoints: Checkpointer
    parent: Parent

    def load(self, params: Any) -> Any:
        """Return the parameters, shaped and placed as fresh ones."""
        return self.checkpoints.restore_params(self.parent.step, params)

    def __str__(self) -> str:
        return f"{self.parent.folder} after step {self.parent.step}"


class FileWeights(NamedTuple):
    """A file with the parameters of a Megalodon, as `chomp export` writes it."""

    path: Path

    @property
    def parent(self) -> Parent:
        """Where the parameters are from."""
        return Parent("", str(self.path.resolve()), 0, "init")

    def load(self, params: Any) -> Any:
        """Return the parameters, shaped and placed as fresh ones.

        Raises:
            ConfigError: the file can't be read, or they don't fit.
        """
        try:
            return read_weights(self.path, params)
        except (OSError, ValueError) as error:
            raise ConfigError([f"{KEY}: {error}"]) from error

    def __str__(self) -> str:
        return str(self.path)


def located(config: Config) -> Config:
    """Return the configuration with `train.init_from` as a path that is right in any folder.

    Raises:
        ConfigError: it can't be one.
    """
    if config.train.init_from is None:
        return config
    path, step = split_step(config.train.init_from)
    value = str(_place(path)) if step == "latest" else f"{_place(path)}:{step}"
    train = config.train.model_copy(update={"init_from": value})
    return config.model_copy(update={"train": train})


def choose_step(config: Config, begun: Parent | None, console: Console) -> int:
    """Return the step of the run that `train.init_from` names; 0: it names none.

    Processes that chose for themselves could take different ones, of a run that is training.

    Args:
        config: of the new run.
        begun: what an earlier start of it began from: `latest` stays the step that it was then.
        console: shows what is wrong with newer checkpoints.

    Raises:
        ConfigError: there is no such run, or it has no checkpoint.
        ResumeError: it has no such checkpoint that is good.
    """
    if config.train.init_from is None:
        return 0
    path, step = split_step(config.train.init_from)
    place = _place(path)
    if _is_file(place):
        return 0
    home = str(place.resolve())
    if step == "latest" and begun and (begun.kind, begun.folder) == ("init", home):
        step = str(begun.step)
    choice = _checkpoints(RunFolder(place)).choose(step)
    if choice.step is None:
        raise ConfigError([f"{KEY}: {place} has no checkpoint yet; train it first"])
    for line in damage_lines(choice):
        console.warn(line)
    return choice.step


def open_weights(components: Components, step: int) -> CheckpointWeights | FileWeights | None:
    """Return what `train.init_from` names; None: the run begins with fresh parameters.

    Args:
        components: of the new run.
        step: that `choose_step` has returned.

    Raises:
        ConfigError: there is no such run or file, or its parameters or its tokenizer don't fit.
    """
    value = components.config.train.init_from
    if value is None:
        return None
    place = _place(split_step(value)[0])
    if _is_file(place):
        return _open_file(place, components)
    return _open_run(RunFolder(place), step, components)


def _place(path: str) -> Path:
    try:
        return run_path(path)
    except ResumeError as error:
        raise ConfigError([f"{KEY}: {error}"]) from error


def _is_file(place: Path) -> bool:
    return place.suffix == ".safetensors" or (place / FILE).exists()


def _checkpoints(folder: RunFolder) -> Checkpointer:
    try:
        folder.require_run()
        config = config_from_mapping(folder.read_resolved())
    except (ResumeError, ConfigError) as error:
        raise ConfigError([f"{KEY}: {error}"]) from error
    return Checkpointer(folder.inside(config.checkpoint.root_dir or "checkpoints"))


def _open_file(path: Path, components: Components) -> FileWeights:
    if not isinstance(components.program.model, Megalodon):
        raise ConfigError([f"{KEY}: {path} is for model.backend: megalodon"])
    tokenizer = path / TOKENIZER_FILE if path.is_dir() else path.with_name(TOKENIZER_FILE)
    if tokenizer.is_file():
        theirs, _ = read_tokenizer_file(tokenizer)
        ours = components.tokenizer
        (ids,) = ours.encode_batch([PROBE])
        text = [token for token in ids.tolist() if token not in (ours.bos_id, ours.eos_id)]
        if text != theirs.encode(PROBE, add_special_tokens=False).ids:
            raise ConfigError(
                [
                    f"{KEY}: {tokenizer} gives other tokens than this configuration's tokenizer; "
                    f"use it: data.tokenizer.kind: hf, data.tokenizer.hf_name_or_path: {tokenizer}"
                ]
            )
    weights = FileWeights(path)
    weights.load(components.program.shapes.params)  # what is wrong with it is said now
    return weights


def _open_run(folder: RunFolder, step: int, components: Components) -> CheckpointWeights:
    checkpoints = _checkpoints(folder)
    saved = checkpoints.restore_run(step)
    _check_tokenizer(folder, saved, components)
    _check_parameters(folder, checkpoints.path(step), saved, components)
    try:
        record = read_record(folder.record)
    except ValueError as error:
        raise ConfigError([f"{KEY}: {folder.record} is broken ({error})"]) from error
    run = record.run if record else ""
    parent = Parent(run, str(folder.path.resolve()), step, "init")
    return CheckpointWeights(checkpoints, parent)


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
