import math

import pytest

from chomp.config.yaml_loader import YamlError, parse_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("3e4", 3e4),
        ("-.5", -0.5),
        ("1.", 1.0),
        ("+2.5E+3", 2500.0),
        ("10_000", 10000),
        ("010", 10),
        ("-7", -7),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("12:30", "12:30"),
        ("2020-13-45", "2020-13-45"),
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("null", None),
        ("", None),
        ("'5'", "5"),
        ("1e-3x", "1e-3x"),
        ("!!str 5", "5"),
        ("!!float 5", 5.0),
        ("[1, {a: b}]", [1, {"a": "b"}]),
        ("{on: 1, 2: 3, null: 4, <<: 5}", {"on": 1, "2": 3, "null": 4, "<<": 5}),
        ("\ufeffa: 1", {"a": 1}),
    ],
)
def test_values(text: str, value: object) -> None:
    parsed = parse_yaml(text).value
    assert parsed == value
    assert type(parsed) is type(value)


def test_nan() -> None:
    value = parse_yaml(".nan").value
    assert isinstance(value, float) and math.isnan(value)


def test_repeated_keys_are_named_with_their_line() -> None:
    parsed = parse_yaml("a:\n  b: 1\n  c: 2\n  b: 3\na: {}\n")
    assert parsed.repeated == [("a.b", 4), ("a", 5)]


@pytest.mark.parametrize(
    ("text", "line", "column", "part"),
    [
        ("a: [1,\nb", 2, 2, "expected ',' or ']'"),
        ("a: 1\n b: 2", 2, 3, "mapping values are not allowed"),
        ("a:\n\tb: 1", 2, 1, "'\\t'"),
        ("a: &x 1\nb: *x", 2, 4, "aliases (*name) are not supported: write ${variables.name}"),
        ("a: &x [*x]", 1, 8, "aliases"),
        ("a: !!set {b}", 1, 4, "tag !!set is not supported"),
        ("a: !!python/name:os.system x", 1, 4, "is not supported"),
        ("a: !mine 1", 1, 4, "tag !mine is not supported"),
        ("a: !!int x", 1, 4, "'x' is not a number of type !!int"),
        ("a: " + "9" * 5000, 1, 4, "is not a number of type !!int"),
        ("[a]: 1", 1, 1, "a key must be plain text"),
        ("? {a: b}\n: 1", 1, 3, "a key must be plain text"),
        ("--- a\n--- b", 2, 1, "expected a single document"),
        ("a: x\x00", 1, 5, "character #x0000 is not allowed"),
        ("[" * 20000, 1, 1, "nested too deeply"),
    ],
)
def test_errors_name_the_place(text: str, line: int, column: int, part: str) -> None:
    with pytest.raises(YamlError) as caught:
        parse_yaml(text)
    assert part in caught.value.problem
    assert (caught.value.line, caught.value.column) == (line, column)
