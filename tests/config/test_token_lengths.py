import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from chomp.config import load_config
from chomp.config.json_schema import config_schema
from chomp.config.keys import known_paths
from chomp.config.reference_page import config_reference
from chomp.config.token_lengths import LENGTHS
from chomp.errors import ConfigError

BATCH = "train: {batch_size: 4, grad_accum: 2, seq_len: 128, "
"""1,024 tokens a step."""


def load(folder: Path, text: str, *overrides: str) -> Any:
    path = folder / "config.yaml"
    path.write_text(text)
    return load_config(path, overrides)


def problems(folder: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(folder, text)
    return caught.value.problems


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("1024 tokens", 1),
        ("1025 tokens", 2),
        ("1e6 tokens", 977),
        ("2.5M tokens", 2442),
        ("1B tokens", 976_563),
        ("1 B tokens", 976_563),
        ("300K tokens", 293),
    ],
)
def test_they_become_the_steps_that_have_so_many(tmp_path: Path, text: str, steps: int):
    config = load(tmp_path, f"{BATCH}steps: {text}}}", "optim.warmup_steps=0")
    assert config.train.steps == steps


def test_each_key_that_is_a_length(tmp_path: Path):
    config = load(
        tmp_path,
        """
variables: {end: 100K tokens}
train: {seq_len: 128, batch_size: 8, steps: "${variables.end}", log_every: 2e3 tokens,
  eval_every: 50K tokens, generate_every: 0 tokens, ema: 0.9, ema_from: 90K tokens}
optim: {warmup_steps: 10K tokens, decay_steps: 90K tokens}
checkpoint: {save_every: 10240 tokens, keep_every: 20480 tokens}
data:
  sources:
    - {name: a, files: ["*.txt"], weight: 1}
    - {name: b, files: ["*.md"], weight: 1}
  stages: [{from_step: 80K tokens, weights: {a: 0.5, b: 0.5}}]
""",
    )
    train = config.train
    assert (train.steps, train.log_every, train.eval_every, train.ema_from) == (98, 2, 49, 88)
    assert train.generate_every == 0
    assert (config.optim.warmup_steps, config.optim.decay_steps) == (10, 88)
    assert (config.checkpoint.save_every, config.checkpoint.keep_every) == (10, 20)
    assert config.data.stages[0].from_step == 79
    assert set(LENGTHS) - {"data.stages.from_step"} <= set(known_paths())


def test_an_override_replaces_them(tmp_path: Path):
    text = f"{BATCH}steps: 1e6 tokens}}"
    assert load(tmp_path, text, "train.steps=50").train.steps == 50
    assert load(tmp_path, text, "train.steps=2048 tokens", "optim.warmup_steps=1").train.steps == 2
    assert load(tmp_path, text, "train.batch_size=8").train.steps == 489


def test_what_is_no_length_is_refused(tmp_path: Path):
    [line] = problems(tmp_path, "train: {steps: 5 Mtokens}")
    assert line.startswith("train.steps: must be a whole number (got '5 Mtokens'); an amount of")
    [line] = problems(tmp_path, "train: {batch_size: 100 tokens, steps: 1e6 tokens}")
    assert line == "train.batch_size: must be a whole number (got '100 tokens')"
    [line] = problems(tmp_path, f"{BATCH}steps: 0 tokens}}")
    assert line == "train.steps: must be greater than 0 (got 0)"
    [line] = problems(tmp_path, f"{BATCH}steps: 1e90 tokens}}")
    assert line.startswith("train.steps: must be at most 2147483647 (got a huge number)")
    # The rule between them is judged in steps.
    [line] = problems(tmp_path, f"{BATCH}steps: 1e4 tokens}}\noptim: {{warmup_steps: 2e4 tokens}}")
    assert line == "optim.warmup_steps: must be less than train.steps, which is 10 (got 20)"


def test_editors_know_them():
    schema = config_schema()
    for value in ("2.5B tokens", "1e9 tokens", 5):
        jsonschema.validate({"train": {"steps": value}}, schema)
    for wrong in ({"train": {"steps": "5 things"}}, {"train": {"batch_size": "5 tokens"}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)


def test_the_reference_names_them():
    page = config_reference()
    part = page[page.index("**Lengths in tokens.**") : page.index("**References.**")]
    named = set(re.findall(r"`((?:train|optim|checkpoint)\.\w+)", part))
    assert named == set(LENGTHS) - {"data.stages.from_step"}
    assert "a stage's `from_step`" in part
