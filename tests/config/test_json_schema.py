import json
from pathlib import Path

import pytest
from jsonschema import Draft7Validator

from chomp.config import config_schema
from chomp.config.yaml_loader import parse_yaml

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))


@pytest.fixture(scope="module")
def validator() -> Draft7Validator:
    schema = config_schema()
    Draft7Validator.check_schema(schema)
    return Draft7Validator(schema)


def test_the_shipped_schema_is_the_generated_one() -> None:
    shipped = (ROOT / "docs/config.schema.json").read_text()
    assert shipped == json.dumps(config_schema(), indent=2) + "\n", (
        "out of date: write it anew with `chomp config schema > docs/config.schema.json`"
    )


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_shipped_configs_name_it_and_are_valid(path: Path, validator: Draft7Validator) -> None:
    text = path.read_text()
    first = text.splitlines()[0]
    assert first == "# yaml-language-server: $schema=../docs/config.schema.json"
    validator.validate(parse_yaml(text).value)


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "train: {steps: '${variables.x}'}\nvariables: {x: 5}",
        "train: ${variables.all}",
        "train: null",
        "optim: {name: '${variables.x}', lr: 1e-3, muon: {consistent_rms: null}}",
        "data: {files: ['${variables.x}', a], local_text: [a, b]}",
        "data: {local_text: a}",
    ],
)
def test_right_configs(text: str, validator: Draft7Validator) -> None:
    validator.validate(parse_yaml(text).value)


@pytest.mark.parametrize(
    "text",
    [
        "trian: {}",
        "train: {stpes: 5}",
        "train: {steps: 0}",
        "train: {steps: abc}",
        "train: {steps: '5'}",
        "train: {jit: 'true'}",
        "train: 5",
        "optim: {name: adam}",
        "optim: {lr: fast}",
        "model: {compute_dtype: float16}",
        "model: {dropout: 1.0}",
        "data: {files: a.txt}",
        "data: {files: [5]}",
        "logging: {wandb: {tags: null}}",
        "variables: 5",
    ],
)
def test_wrong_configs(text: str, validator: Draft7Validator) -> None:
    assert not validator.is_valid(parse_yaml(text).value)


def test_every_key_has_a_description() -> None:
    schema = config_schema()
    for section in (schema, *schema["$defs"].values()):
        for name, prop in section.get("properties", {}).items():
            assert prop.get("description"), name
