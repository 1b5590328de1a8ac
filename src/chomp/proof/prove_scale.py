"""The proof that a run is the same on any devices: one device, meshes, several processes."""

import itertools
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from chomp.checkpoint.arrays import PARAMS, read_numpy
from chomp.checkpoint.directory import CheckpointDirectory
from chomp.config import Config, config_from_mapping
from chomp.errors import ConfigError
from chomp.proof.layouts import ELASTIC, MOST_DEVICES, MOST_PROCESSES, ONE, SPREAD
from chomp.proof.trial import Trial
from chomp.proof.trial_config import trial_values
from chomp.proof.work_folder import work_folder
from chomp.system.console import Console


class ScaleSettings(NamedTuple):
    """Settings of a proof, and its tolerance."""

    steps: int
    small: bool
    tolerance: float
    """Largest relative difference of a loss, and of the norm of all parameters' differences."""
    work_dir: Path | None


class Apart(NamedTuple):
    """Differences of a run from the one on one device."""

    batches: int
    """Steps whose batch is another one."""
    loss: float
    """The largest relative difference of a step's loss."""
    evaluation: float
    parameters: float
    """Norm of the differences over the norm of the parameters."""

    def within(self, tolerance: float) -> bool:
        """Whether it is the same run."""
        return self.batches == 0 and max(self.loss, self.evaluation, self.parameters) <= tolerance


def prove_scale(config: Config, settings: ScaleSettings, console: Console) -> bool:
    """Run the proof and tell how it goes; return whether all layouts agree.

    Raises:
        ConfigError: the configuration can't be run so, or `work_dir` holds something.
        ChompError: a run failed; the message has its last lines.
    """
    values = scale_values(config, steps=settings.steps, small=settings.small)
    work = work_folder(settings.work_dir)
    proved, kept = False, True
    try:
        (work / "config.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
        proved = _prove(work, settings, console)
        kept = settings.work_dir is not None or not proved
    finally:
        if kept:
            console.message(f"runs        kept in {work}")
        else:
            shutil.rmtree(work)
    return proved


def scale_values(config: Config, *, steps: int, small: bool) -> dict[str, Any]:
    """Return the values of a short run in float32 whose batches are the same everywhere.

    Raises:
        ConfigError: what results isn't valid, or its rows can't be shared by the most devices.
    """
    values = trial_values(config, steps=steps, small=small)
    train, optim = values["train"], values["optim"]
    optim["warmup_steps"] = min(optim["warmup_steps"], steps // len(ELASTIC) - 1)
    if train["batch_size"] % MOST_DEVICES:
        raise ConfigError(
            [
                f"train.batch_size: must be a multiple of {MOST_DEVICES}, the most devices of the "
                f"proof (got {train['batch_size']}); for example -o train.batch_size={MOST_DEVICES}"
            ]
        )
    train |= {"eval_every": steps if train["eval_every"] else 0, "deterministic": True}
    values["model"] |= {"compute_dtype": "float32", "param_dtype": "float32"}
    if values["data"]["backend"] != "tokens":
        values["data"]["lanes"] = MOST_PROCESSES
    config_from_mapping(values)
    return values


def _prove(work: Path, settings: ScaleSettings, console: Console) -> bool:
    path, steps = work / "config.yaml", settings.steps
    reference = Trial(path, work / "reference")
    reference.finish(ONE)
    console.message(f"reference   {steps} steps on one device")
    proved = True
    for number, layout in enumerate(SPREAD, 1):
        trial = Trial(path, work / f"layout-{number}")
        trial.finish(layout)
        proved &= _judge(str(layout), apart(reference, trial), settings, console)
    trial = Trial(path, work / "elastic")
    ends = [steps * number // len(ELASTIC) for number in range(1, len(ELASTIC) + 1)]
    for layout, end in zip(ELASTIC, ends, strict=True):
        trial.finish(layout, steps=end)
    parts = ", then ".join(
        f"{after - before} steps on {layout}"
        for layout, (before, after) in zip(ELASTIC, itertools.pairwise([0, *ends]), strict=True)
    )
    proved &= _judge(parts, apart(reference, trial), settings, console)
    console.message(
        "proved      the same run on all of them" if proved else "FAILED      not the same run"
    )
    return proved


def _judge(name: str, found: Apart, settings: ScaleSettings, console: Console) -> bool:
    same = found.within(settings.tolerance)
    batches = "same batches" if not found.batches else f"OTHER BATCHES in {found.batches} steps"
    console.message(
        f"{'agrees' if same else 'DIFFERS':<11} {name}: {batches}; relative differences: loss "
        f"{found.loss:.1e}, evaluation {found.evaluation:.1e}, parameters {found.parameters:.1e}"
    )
    return same


def apart(reference: Trial, other: Trial) -> Apart:
    """Compare two finished runs."""
    losses = _by_step(reference, "loss"), _by_step(other, "loss")
    hashes = _by_step(reference, "batch_hash"), _by_step(other, "batch_hash")
    evaluations = _by_step(reference, "eval_loss"), _by_step(other, "eval_loss")
    last = max(evaluations[0], default=None)
    return Apart(
        sum(hashes[0][step] != hashes[1].get(step) for step in hashes[0]),
        max(_relative(losses[0][step], losses[1].get(step)) for step in losses[0]),
        0.0 if last is None else _relative(evaluations[0][last], evaluations[1].get(last)),
        _parameters_apart(reference, other),
    )


def _by_step(trial: Trial, key: str) -> dict[int, Any]:
    return {row["step"]: row[key] for row in trial.rows("metrics.jsonl") if key in row}


def _relative(wanted: float, found: float | None) -> float:
    return float("inf") if found is None else abs(found - wanted) / abs(wanted)


def _parameters_apart(reference: Trial, other: Trial) -> float:
    wanted, found = (_parameters(trial.checkpoints) for trial in (reference, other))
    distance = sum(float(np.square(wanted[name] - found[name]).sum()) for name in wanted)
    size = sum(float(np.square(array).sum()) for array in wanted.values())
    return (distance / size) ** 0.5


def _parameters(directory: CheckpointDirectory) -> dict[str, np.ndarray]:
    step = directory.newest_good().step
    assert step is not None
    arrays = read_numpy(directory.path(step), PARAMS)
    return {name: np.asarray(array, np.float64) for name, array in arrays.items()}
