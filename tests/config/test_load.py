import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from chomp.config import Config, config_from_mapping, load_config
from chomp.errors import ConfigError

Load = Callable[..., Config]
Problems = Callable[..., list[str]]


def test_an_empty_file_is_all_defaults(load: Load) -> None:
    assert load("") == Config()
    assert load("train:\noptim:\n  muon:\n") == Config()


def test_all_problems_at_once(problems: Problems) -> None:
    found = problems(
        """
variables: {a: "${variables.b}", b: "${variables.a}"}
model: {z_dim: 63, compute_dtype: float16, max_cache_len: 5}
train:
  stpes: 3
  batch_size: two
  log_every: ${variables.nothing}
  log_every: ${variables.nothing}
optim: {lr: .nan, muon: {ns_steps: 0}}
trian: {}
logging: 5
""",
        "data.seed",
        "train.seq_len=200",
    )
    assert found == [
        "train.log_every: given twice, again in line 8",
        "override 'data.seed': must have the form section.key=value",
        "variables.a: circular reference: variables.a -> variables.b -> variables.a",
        "train.log_every: refers to ${variables.nothing}, which does not exist",
        "model.compute_dtype: float16 is not supported, as ComplexEMA, normalisation and the "
        "long-context state are not stable in it; write 'float32' or 'bfloat16' (got 'float16')",
        "model.max_cache_len: no longer exists, leave it out: the cache for generation has the "
        "size of model.chunk_size",
        "train.batch_size: must be a whole number (got 'two')",
        "unknown key 'train.stpes'; did you mean 'train.steps'?",
        "optim.lr: must be a finite number (got nan)",
        "optim.muon.ns_steps: must be greater than 0 (got 0)",
        "logging: must be a section, a mapping of keys to values (got 5)",
        "unknown key 'trian'; did you mean 'train'?",
        "train.seq_len: must be a multiple of model.chunk_size, which is 128 (got 200); the "
        "nearest are 128 and 256",
        "model.z_dim: must give each head an even width, as rotary positions rotate pairs: "
        "model.z_dim / model.num_heads is 63 (got 63 and 1)",
    ]


def test_a_rule_keeps_quiet_about_keys_that_are_wrong_already(
    problems: Problems,
) -> None:
    assert problems("train: {steps: -5}\noptim: {warmup_steps: 200}") == [
        "train.steps: must be greater than 0 (got -5)"
    ]
    # The key that was meant has a value that the user never chose.
    assert problems("train: {stpes: 500}\noptim: {warmup_steps: 200}") == [
        "unknown key 'train.stpes'; did you mean 'train.steps'?"
    ]
    assert problems("trian: {steps: 500}\noptim: {warmup_steps: 200}") == [
        "unknown key 'trian'; did you mean 'train'?"
    ]
    assert problems("train: {steps: '${x}'}\noptim: {warmup_steps: 200}") == [
        "train.steps: refers to ${x}, which does not exist"
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("- a", "FILE: must be a mapping of sections (got a list)"),
        ("hello", "FILE: must be a mapping of sections (got 'hello')"),
        (
            "a: [1",
            "FILE:1:6: not valid YAML: while parsing a flow sequence, expected ',' or ']', but "
            "got '<stream end>'",
        ),
        ("variables: 3", "variables: must be a mapping of names to values (got 3)"),
    ],
)
def test_files_that_hold_no_config(problems: Problems, text: str, problem: str) -> None:
    assert problems(text) == [problem]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    missing, binary = tmp_path / "missing.yaml", tmp_path / "binary.yaml"
    binary.write_bytes(b"a: \xff")
    for path, problem in (
        (missing, "can't be read: No such file or directory"),
        (tmp_path, "can't be read: Is a directory"),
        (binary, "is not UTF-8 text (byte 3 is the first wrong one)"),
    ):
        with pytest.raises(ConfigError) as caught:
            load_config(path)
        assert caught.value.problems == [f"{path}: {problem}"]


def test_overrides(load: Load) -> None:
    config = load(
        "optim: {muon: {momentum: 0.9}}",
        "optim.lr=3e-4",
        "train.steps = 500",
        "optim.muon={ns_steps: 3, lr_scale: 2}",
        "data.files=[a.txt, b.txt]",
        "logging.log_file=null",
        "logging.wandb.run_name=a=b",
        "train.steps=600",
        "optim.weight_decay=0",
    )
    assert config.optim.lr == 3e-4
    assert config.train.steps == 600
    assert config.optim.muon.momentum == 0.9
    assert config.optim.muon.ns_steps == 3
    assert config.data.files == ("a.txt", "b.txt")
    assert config.logging.log_file is None
    assert config.logging.wandb.run_name == "a=b"
    assert type(config.optim.weight_decay) is float


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("train.steps", "override 'train.steps': must have the form section.key=value"),
        ("=5", "override '=5': must have the form section.key=value"),
        ("train..steps=5", "override 'train..steps=5': must have the form section.key=value"),
        ("train.stpes=5", "unknown key 'train.stpes'; did you mean 'train.steps'?"),
        ("train.steps.x=5", "train.steps.x: train.steps is a value, not a section with keys"),
        ("train.steps=abc", "train.steps: must be a whole number (got 'abc')"),
        (
            "train=5",
            "train: must be a section, a mapping of keys to values (got 5)",
        ),
        (
            "train.steps=[5",
            "train.steps: override 'train.steps=[5' is not valid YAML: while parsing a flow "
            "sequence, expected ',' or ']', but got '<stream end>'",
        ),
        (
            "optim.muon={ns_steps: 3, ns_steps: 4}",
            "optim.muon.ns_steps: given twice in an override",
        ),
        (
            "optim.muon={ns_step: 3}",
            "unknown key 'optim.muon.ns_step'; did you mean 'optim.muon.ns_steps'?",
        ),
    ],
)
def test_wrong_overrides(problems: Problems, override: str, problem: str) -> None:
    assert problems("train: {steps: 50}", override) == [problem]


def test_overrides_are_checked_even_if_the_file_is_broken(
    problems: Problems,
) -> None:
    assert len(problems("a: [1", "x", "y")) == 3


def test_the_resolved_config_can_be_loaded_again(load: Load, tmp_path: Path) -> None:
    config = load("data: {local_text: hi, files: [a, b]}\nlogging: {wandb: {tags: [x]}}")
    values = config.model_dump(mode="json")
    assert config_from_mapping(json.loads(json.dumps(values))) == config
    path = tmp_path / "config_resolved.json"
    path.write_text(json.dumps({**values, "derived": {"parameters": 5}}, indent=2))
    assert load_config(path) == config


def test_wrong_mappings_are_refused() -> None:
    with pytest.raises(ConfigError, match="unknown key 'derived'"):
        config_from_mapping({"derived": {}})
    with pytest.raises(ConfigError, match=r"config: must be a section"):
        config_from_mapping([])  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match=r"5: a key must be text"):
        config_from_mapping({5: 6})  # pyright: ignore[reportArgumentType]


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Config().train.steps = 5  # pyright: ignore[reportAttributeAccessIssue]
    assert hash(Config()) == hash(Config())


def test_importing_it_is_light() -> None:
    program = "import sys, chomp.config; print({'jax', 'numpy', 'click'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


def test_options_cannot_be_changed_either() -> None:
    values = {"model": {"options": {"sizes": [1, {"deep": None}], "inner": {"a": 1.5}}}}
    config, again = config_from_mapping(values), config_from_mapping(values)
    assert config == again and hash(config) == hash(again)
    assert config.model_dump(mode="json")["model"]["options"] == values["model"]["options"]
    for copied in (pickle.loads(pickle.dumps(config)), config.model_copy(deep=True)):
        assert copied == config
    options = config.model.options
    for change in (
        lambda: options.update(a=1),
        lambda: options.pop("inner"),
        lambda: options["inner"].update(a=2),  # pyright: ignore
        lambda: options["sizes"].append(2),  # pyright: ignore
    ):
        with pytest.raises((TypeError, AttributeError)):
            change()
    assert config == again
