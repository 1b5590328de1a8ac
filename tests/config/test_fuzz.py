"""Whatever is in the file: a Config, or a ConfigError whose lines each name a place."""

import copy
import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from chomp.config import Config, config_from_mapping, config_warnings, load_config
from chomp.config.keys import RETIRED, known_paths
from chomp.config.yaml_loader import parse_yaml
from chomp.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs"
VALID: list[dict[str, Any]] = [Config().model_dump(mode="json")]
for shipped in sorted(CONFIGS.glob("*.yaml")):
    values = parse_yaml(shipped.read_text()).value
    assert isinstance(values, dict)
    VALID.append(values)

# A name comes first: of the file with its place, of the key (any text), or of the override.
LINE = re.compile(
    r"FILE(:\d+:\d+)?: \S|unknown key '.*'; \S|override ['\"].*['\"]: \S|.+?: \S", re.DOTALL
)


def outcome(text: str, overrides: Sequence[str] = ()) -> Config | None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "FILE"
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        try:
            config = load_config(path, overrides)
        except ConfigError as error:
            assert error.problems
            for line in error.problems:
                line = line.replace(str(path), "FILE")
                assert LINE.match(line), line
                assert "\n" not in line
            return None
    # What was accepted can be used: warned about, written down, and read again.
    config_warnings(config)
    assert config_from_mapping(json.loads(json.dumps(config.model_dump(mode="json")))) == config
    return config


names = st.sampled_from([*known_paths(), *RETIRED, "variables", "variables.x"])
words = st.sampled_from(
    ["${train.seq_len}", "${variables.x}", "a${train.steps}b", "$variables.x", "${", "$${", "none"]
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-3, 300)
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | words
)
anything = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=4) | names, inner, max_size=3)
    ),
    max_leaves=6,
)


def places(mapping: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    for key, value in mapping.items():
        yield mapping, key
        if isinstance(value, dict):
            yield from places(value)


@st.composite
def edited(draw: st.DrawFn) -> dict[str, Any]:
    mapping = copy.deepcopy(draw(st.sampled_from(VALID)))
    for _ in range(draw(st.integers(1, 4))):
        found = list(places(mapping))
        if not found:
            break
        section, key = draw(st.sampled_from(found))
        match draw(st.sampled_from(["delete", "replace", "rename", "swap"])):
            case "delete":
                del section[key]
            case "replace":
                section[key] = draw(anything)
            case "rename":
                section[draw(st.text(max_size=6) | names)] = section.pop(key)
            case "swap":
                other, other_key = draw(st.sampled_from(found))
                section[key] = copy.deepcopy(other.get(other_key))
    return mapping


def as_override(name: str, value: object) -> str:
    return f"{name}={yaml.safe_dump(value, default_flow_style=True)}"


overrides = st.lists(st.text(max_size=20) | st.builds(as_override, names, anything), max_size=3)


@settings(deadline=None, max_examples=300)
@given(edited(), overrides)
def test_edits_of_valid_configs(mapping: dict[str, Any], changes: list[str]) -> None:
    outcome(yaml.safe_dump(mapping, sort_keys=False, allow_unicode=True), changes)


@settings(deadline=None, max_examples=300)
@given(st.text() | st.text(alphabet="ab:-[]{}&*!|>'\"#%@,?$ \n\t1.e<"))
def test_raw_text(text: str) -> None:
    outcome(text)


@settings(deadline=None, max_examples=100)
@given(st.sampled_from(sorted(CONFIGS.glob("*.yaml"))), st.data())
def test_cut_and_spliced_files(path: Path, data: st.DataObject) -> None:
    text = path.read_text()
    start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(text))] * 2)))
    outcome(text[:start] + data.draw(st.text(max_size=5)) + text[end:])


@settings(deadline=None, max_examples=200)
@given(st.dictionaries(names.filter(lambda name: name in known_paths()), scalars, max_size=8))
def test_known_keys_with_any_values(values: dict[str, Any]) -> None:
    outcome("", [as_override(name, value) for name, value in values.items()])


def test_the_fuzz_reaches_both_outcomes() -> None:
    assert outcome("train: {steps: 50}") is not None
    assert outcome("train: {steps: 0}") is None
