"""Comparison of a run's configuration with a saved one: a resume is refused where they differ."""

import functools
import importlib.metadata
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from chomp.config import Config
from chomp.config.keys import OPTIONS, known_paths, nearest_path
from chomp.errors import ConfigError, ResumeError

PACKAGES = ("chomp", "jax", "jaxlib", "equinox", "optax", "megalodon-jax", "grain", "datasets")
"""Packages whose versions can change results."""
ENVIRONMENT = "environment"
"""Key of the environment variables that change what is computed."""
ARITHMETIC = "arithmetic"
"""Key of the number of a step's arithmetic, raised when a version of chomp computes a step in
another order, or with other programs, and so rounds otherwise."""
ARITHMETIC_NOW = {"cpu": 4, "gpu": 3}
"""That number by platform. It was 1 while rates were constants of the step."""
ARITHMETIC_ELSEWHERE = 2
IDENTITY_SECTIONS = ("model", "data", "optim", ENVIRONMENT)
IDENTITY_TRAIN = ("seed", "batch_size", "seq_len", "grad_accum", "deterministic")
# How data is fetched, not what it is.
NOT_IDENTITY = (
    "data.max_retries",
    "data.retry_delay_sec",
    "data.timeout_sec",
    "data.on_error",
    "data.grain_prefetch",
    "data.eval_sets",
    "data.hf_revision",  # its content is compared
)
OLD_EVALUATION = 1000
"""The default of `data.max_eval_samples` in earlier versions, whatever the corpus."""
CONTENT = "data.content"
"""Key of the fingerprints of the data."""
TOKENS = "data.tokens"
"""Key of the fingerprint of the tokenizer."""
OTHER_KEYS = (CONTENT, TOKENS, ENVIRONMENT, ARITHMETIC)
"""Keys that `--allow-change` accepts besides those of the configuration."""
PATHS = (
    "data.files",
    "data.eval_files",
    "data.hf_dataset",
    "data.tokens_dir",
    "data.tokenizer.hf_name_or_path",
)
EVALUATION_SETS = f"{CONTENT}.evaluation set "
SOURCES = "data.sources"
"""A list of mappings, which are compared by their names."""


def package_versions() -> dict[str, str]:
    """Return the versions of those of `PACKAGES` that are installed."""
    return {name: version for name in PACKAGES if (version := _version(name))}


@functools.cache  # each checkpoint has them, and reading them all takes 30 ms
def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # it comes with an extra
        return None


class ConfigChange(NamedTuple):
    """A value that differs between the saved run and the new start."""

    key: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.key}: was {self.old!r}, now {self.new!r}"


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested values by their dotted keys."""
    return dict(_flat(values))


def _flat(mapping: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in mapping.items():
        if prefix + name == SOURCES:
            for source in value:
                yield from _flat(source, f"{SOURCES}.{source['name']}.")
        elif isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _normal(key: str, value: Any) -> Any:
    """Make spellings of one path equal, and an empty list what earlier versions didn't have."""
    if value in ([], ()):
        return None
    if key.startswith(f"{SOURCES}."):
        key = "data." + key.rpartition(".")[2]
    if key not in PATHS or value is None:
        return value
    return _plain(value) if isinstance(value, str) else [*map(_plain, value)]


def _plain(path: Any) -> Any:
    """Return a path in its plain spelling, also in an entry with keys of its own."""
    if isinstance(path, Mapping):
        return {**path, "path": os.path.normpath(path["path"])}
    return os.path.normpath(path)


EARLIER_DEFAULTS = {
    "data.packing_mode": "sequential",
    "optim.schedule": "cosine",
    "optim.weight_decay": 0.01,
}
"""Values by default in earlier versions: a run that began with one keeps it."""
OLD_DEFAULTS = EARLIER_DEFAULTS | {"data.shuffle_buffer_bytes": None}
"""Defaults of earlier versions, which had no such keys, where they differ from those of now."""


@functools.cache
def _defaults() -> dict[str, Any]:
    return flat(Config().model_dump(mode="json")) | OLD_DEFAULTS


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[ConfigChange]:
    """Return the dotted keys whose values differ, in order.

    A key that the old values lack, since that version didn't know it, had its default of then.
    """
    before, after = flat(old), flat(new)
    before |= {key: was for key, was in _defaults().items() if key in after and key not in before}
    return [
        ConfigChange(key, before.get(key), after.get(key))
        for key in dict.fromkeys([*before, *after])
        if _normal(key, before.get(key)) != _normal(key, after.get(key))
    ]


def keep_old_defaults(config: Config, saved: Mapping[str, Any]) -> Config:
    """Return the configuration with defaults of an earlier version, where it gives no value.

    Args:
        config: that of the new start.
        saved: that of the saved run.
    """
    before, kept = saved["data"], {}
    if config.data.max_eval_samples is None and before["max_eval_samples"] == OLD_EVALUATION:
        kept["max_eval_samples"] = OLD_EVALUATION
    if "shuffle_buffer_bytes" not in config.data.model_fields_set:
        kept["shuffle_buffer_bytes"] = before.get("shuffle_buffer_bytes")
    config = config.model_copy(update={"data": config.data.model_copy(update=kept)})
    values = flat(saved)
    for key, was in EARLIER_DEFAULTS.items():
        if values.get(key, was) == was:
            config = _unless_given(config, key.split("."), was)
    return config


def _unless_given(section: Any, keys: Sequence[str], value: Any) -> Any:
    """Return a section of the configuration with a value, unless the user gives one."""
    name, *inner = keys
    if inner:
        value = _unless_given(getattr(section, name), inner, value)
    elif name in section.model_fields_set:
        return section
    return section.model_copy(update={name: value})


def check_begins(config: Config) -> None:
    """Check that a run which begins has nothing that is for one that goes on.

    Raises:
        ConfigError: it has.
    """
    if config.optim.rewarm_steps is not None and config.optim.rewarm_from is None:
        problem = "is for a run that goes on from a checkpoint; a new one has optim.warmup_steps"
        raise ConfigError([f"optim.rewarm_steps: {problem}"])


def arithmetic(platform: str) -> int:
    """Return the number of the arithmetic of a step on a platform."""
    return ARITHMETIC_NOW.get(platform, ARITHMETIC_ELSEWHERE)


def check_arithmetic(meta: Mapping[str, Any], platform: str, allowed: Sequence[str]) -> None:
    """Check that a step rounds as it did where a checkpoint was made.

    Args:
        meta: of the checkpoint.
        platform: that the run goes on with.
        allowed: keys whose change the user wants.

    Raises:
        ResumeError: it doesn't.
    """
    # What the versions before the number said of it.
    before = meta.get(ARITHMETIC, 2 if meta.get("rates") == "inputs" else 1)
    if before == arithmetic(platform) or ARITHMETIC in allowed:
        return
    versions = meta["versions"]
    commit = versions.get("commit of chomp")
    theirs = f"chomp {versions.get('chomp', 'of then')}" + (f", commit {commit}" if commit else "")
    raise ResumeError(
        f"{ARITHMETIC}: was {before}, now {arithmetic(platform)}: steps of this version of chomp "
        f"round otherwise than those that made the checkpoint ({theirs}); go on with that version, "
        f"or with this one, but not bit for bit: --allow-change {ARITHMETIC}"
    )


def rewarm_from(config: Config, saved: Mapping[str, Any], step: int) -> Config:
    """Return the configuration with the step at which the learning rate rises once more.

    So the rate stays a function of the step and the configuration, wherever the run is resumed.

    Args:
        config: that of the new start, or of a branch.
        saved: that of the checkpoint; where the rate rises in it already, that stays.
        step: of the checkpoint.
    """
    optim = config.optim
    if optim.rewarm_steps is None or optim.rewarm_from is not None:
        return config
    before = saved["optim"].get("rewarm_from")
    begin = {"rewarm_from": step if before is None else before}
    return config.model_copy(update={"optim": optim.model_copy(update=begin)})


def without_evaluation(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's identity without the evaluation documents: nothing is evaluated on them."""
    data = identity["data"]
    content = {
        key: value for key, value in data["content"].items() if not key.startswith("evaluation ")
    }
    return {**identity, "data": {**data, "content": content}}


def matters(change: ConfigChange) -> bool:
    """Return whether it makes another run."""
    section, _, name = change.key.partition(".")
    if section == "train":
        # Switching evaluation on or off changes which documents are held out of training.
        return name in IDENTITY_TRAIN or (
            name == "eval_every" and bool(change.old) != bool(change.new)
        )
    if change.key.startswith(EVALUATION_SETS) and None in (change.old, change.new):
        return False  # a set more, or one less
    return section in IDENTITY_SECTIONS and _of_one_source(change.key) not in NOT_IDENTITY


def _of_one_source(key: str) -> str:
    """Return what the key of a source's revision is called where there is one source."""
    of_a_source = key.startswith(f"{SOURCES}.") and key.endswith(".hf_revision")
    return "data.hf_revision" if of_a_source and ".options." not in key else key


def _options(refused: Sequence[ConfigChange]) -> str:
    """Name each change to allow; the parts of a fingerprint, and options, are allowed together."""
    whole = (CONTENT, SOURCES, *OPTIONS)
    keys = dict.fromkeys(
        next((key for key in whole if change.key.startswith(f"{key}.")), change.key)
        for change in refused
    )
    return " ".join(f"--allow-change {key}" for key in keys)


def check_allowed(keys: Sequence[str]) -> None:
    """Check that what is allowed to change is a key or section of the configuration.

    Raises:
        ConfigError: some are not; a misspelt one would allow nothing.
    """
    problems = []
    for key in keys:
        name, equals, _ = key.partition("=")
        if equals:
            problems.append(
                f"--allow-change {key}: must be a key alone (--allow-change {name}); "
                f"set its value with -o {key}"
            )
        elif key not in (*known_paths(), *OTHER_KEYS) and not key.startswith(
            (f"{ENVIRONMENT}.", f"{SOURCES}.")
        ):
            nearest = nearest_path(key, OTHER_KEYS)
            hint = f"did you mean {nearest}?" if nearest else "chomp config reference lists them"
            problems.append(f"--allow-change {key}: there is no such key; {hint}")
    if problems:
        raise ConfigError(problems)


def check_compatible(
    old: Mapping[str, Any], new: Mapping[str, Any], allowed: Sequence[str]
) -> list[ConfigChange]:
    """Return the differences that are no obstacle (allowed ones too).

    Args:
        old: configuration of the saved run, or its fingerprints under `data`.
        new: the same of the new start.
        allowed: dotted keys, or sections, whose change the user wants.

    Raises:
        ResumeError: something differs that makes it another run; lists old and new values.
    """
    found = changes(old, new)

    def is_allowed(change: ConfigChange) -> bool:
        return any(change.key == key or change.key.startswith(key + ".") for key in allowed)

    refused = [change for change in found if matters(change) and not is_allowed(change)]
    if refused:
        lines = [
            "this is not the run that was saved:",
            *(f"  {change}" for change in refused),
            "  put the old values back, start a new run in another folder, or allow the change "
            f"knowingly: {_options(refused)}",
        ]
        raise ResumeError("\n".join(lines))
    return found
