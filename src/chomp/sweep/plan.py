"""What a sweep trains: a configuration for each arm and seed, checked before anything starts."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from chomp.config import Config, config_from_mapping, config_text, load_config
from chomp.errors import ConfigError
from chomp.sweep.arms import Arm, Axis, Choice, check_baseline, make_arms
from chomp.sweep.budget import Budget

SEEDS = 2**32
SEED_KEYS = ("train.seed", "data.seed", "data.eval_seed")
LONGEST_NAME = 80
"""Letters of a run folder's name, without the seed."""
METRICS = "metrics.jsonl"

Values = dict[str, Any]


class Wanted(NamedTuple):
    """What the command line asks for."""

    config: Path
    axes: Sequence[Axis]
    overrides: Sequence[str]
    """For all arms."""
    choice: Choice
    baseline: str | None
    seeds: int
    budget: Budget | None
    halving: bool


class Point(NamedTuple):
    """A run of a sweep."""

    arm: str
    seed: int
    """Number of the seed, from 0."""
    run: str
    """Name of its folder."""


@dataclass(frozen=True)
class Plan:
    """A sweep that is valid.

    Attributes:
        config: path of the file, as given.
        text: of the file.
        base: the configuration without the arms' values.
        arms: by name.
        configs: of the arms.
        baseline: name of the arm that the others are compared with.
        seeds: how many.
        budget: of each run; None: `train.steps` is as the configuration says.
        halving: whether the worse half of the arms ends early.
    """

    config: Path
    text: str
    base: Config
    arms: Mapping[str, Arm]
    configs: Mapping[str, Config]
    baseline: str
    seeds: int
    budget: Budget | None
    halving: bool

    def points(self) -> list[Point]:
        """Return the runs: all arms with the first seed, then all with the second, and so on."""
        return [
            Point(name, seed, f"{folder_name(name)}_seed{seed}")
            for seed in range(self.seeds)
            for name in self.arms
        ]

    def values(self, arm: str, seed: int, steps: int | None = None) -> Values:
        """Return the configuration of a run.

        Seeds move initial weights and the order of documents together. The documents that are held
        out for evaluation are those of the first seed.

        Args:
            arm: its name.
            seed: number of the seed.
            steps: `train.steps`; None: as the arm has it.
        """
        config = self.configs[arm]
        values = config.model_dump(mode="json")
        values["train"]["seed"] = (config.train.seed + seed) % SEEDS
        values["data"]["seed"] = (config.data.seed + seed) % SEEDS
        values["data"]["eval_seed"] = config.data.held_out_seed
        logging = values["logging"]  # all that a run writes is in its own folder
        logging |= {"run_dir": None, "metrics_file": METRICS}
        logging["log_file"] = config.logging.log_file and Path(config.logging.log_file).name
        values["checkpoint"]["root_dir"] = None
        if steps is not None:
            values["train"]["steps"] = steps
        return values


def read_plan(wanted: Wanted) -> Plan:
    """Read the configuration of every arm, and check them all.

    Raises:
        ConfigError: with a line for each thing that is wrong, the arm's name in front.
    """
    text = config_text(wanted.config)
    fixed = [part for axis in wanted.axes if len(axis.values) == 1 for part in axis.overrides()]
    overrides = [*wanted.overrides, *fixed]
    arms = make_arms(wanted.axes, wanted.choice, wanted.baseline)
    baseline = check_baseline(arms, wanted.baseline)
    base = load_config(wanted.config, overrides, text)
    configs, problems = dict[str, Config](), list[str]()
    for arm in arms:
        try:
            config = load_config(wanted.config, [*overrides, *arm.overrides], text)
            configs[arm.name] = _within(config, wanted.budget)
        except ConfigError as error:
            problems += [f"{arm.name}: {problem}" for problem in error.problems]
        else:
            problems += [f"{arm.name}: {problem}" for problem in _unfit(config)]
    swept = {axis.key for axis in wanted.axes if len(axis.values) > 1}
    problems += [
        f"{key}: --seeds N sets the seeds, the same ones for every arm"
        for key in swept & {*SEED_KEYS}
    ]
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))
    if wanted.halving:
        check_rungs(configs)
    return Plan(
        wanted.config,
        text,
        base,
        {arm.name: arm for arm in arms},
        configs,
        baseline,
        wanted.seeds,
        wanted.budget,
        wanted.halving,
    )


def _within(config: Config, budget: Budget | None) -> Config:
    """Return the configuration with the steps that a budget of tokens has room for."""
    if budget is None or budget.is_time:
        return config
    steps = int(budget.amount // config.train.tokens_per_step)
    if steps < 1:
        tokens = f"{config.train.tokens_per_step:,}"
        raise ConfigError([f"--budget: a step has {tokens} tokens (got {budget.amount:.0f})"])
    return with_steps(config, steps)


def with_steps(config: Config, steps: int) -> Config:
    """Return the configuration with another `train.steps`.

    Raises:
        ConfigError: other values don't go together with it.
    """
    values = config.model_dump(mode="json")
    values["train"]["steps"] = steps
    return config_from_mapping(values)


def _unfit(config: Config) -> list[str]:
    """Return why a configuration isn't one for a sweep."""
    problems = []
    if not config.train.eval_every:
        problems.append(
            "train.eval_every: must be above 0, as arms are compared by evaluations (got 0)"
        )
    if not config.checkpoint.enabled:
        problems.append(
            "checkpoint.enabled: must be true, as a sweep goes on with runs that were cut off"
        )
    return problems


def rungs(config: Config) -> list[int]:
    """Return the steps after which arms are compared by halving; the last is the run's last."""
    steps, every = config.train.steps, config.train.eval_every
    near = (max(1, round(steps * share / every)) * every for share in (1 / 4, 1 / 2))
    return [*dict.fromkeys(step for step in near if step < steps), steps]


def check_rungs(configs: Mapping[str, Config]) -> None:
    """Check that all arms can be compared on their way.

    Raises:
        ConfigError: with a line for each that can't.
    """
    problems = [
        f"{name}: train.eval_every: must be at most a quarter of train.steps for --halving, which "
        f"is {config.train.steps // 4} (got {config.train.eval_every})"
        for name, config in configs.items()
        if config.train.eval_every > config.train.steps // 4
    ]
    if problems:
        raise ConfigError(problems)


def folder_name(arm: str) -> str:
    """Return a name for an arm's folders that any file system takes; each arm has another."""
    plain = re.sub(r"[^\w.=,+-]+", "-", arm).strip("-.")[:LONGEST_NAME]
    if plain == arm:
        return arm
    return f"{plain}-{hashlib.sha256(arm.encode()).hexdigest()[:6]}".lstrip("-")


def timing_key(config: Config) -> str:
    """Return what the time of a step depends on: all but rates and seeds.

    Runs with equal keys have the same program.
    """
    values = config.model_dump(mode="json")
    values["optim"] = config.optim.without_rates()
    for key in SEED_KEYS:
        section, _, name = key.partition(".")
        values[section].pop(name)
    return json.dumps(values, sort_keys=True)
