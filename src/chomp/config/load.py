"""From a YAML file and overrides to a Config, or to the list of all that is wrong."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from chomp.config.error_messages import findings, shown
from chomp.config.interpolation import resolve_references
from chomp.config.schema import Config
from chomp.config.sections import Sections
from chomp.config.token_lengths import in_steps
from chomp.config.validators.general import RULE_BROKEN
from chomp.config.yaml_loader import YamlError, parse_yaml
from chomp.errors import ConfigError

Values = dict[str, Any]


class InvalidConfigError(ConfigError):
    """A config's values are wrong, or don't go together.

    Args:
        problems: one line each.
        sections: what of it can be used, with defaults for the rest; None: nothing.
        invalid: dotted paths of the keys, or sections, that can't be.
    """

    def __init__(self, problems: Sequence[str], sections: Sections | None, invalid: frozenset[str]):
        super().__init__(problems)
        self.sections = sections
        self.invalid = invalid


def load_config(path: Path, overrides: Sequence[str] = (), text: str | None = None) -> Config:
    """Read a config file, apply overrides (`section.key=value`), resolve references, validate.

    Args:
        path: the file.
        overrides: as given on the command line.
        text: the file's, where it was read before; a pipe can be read once.

    Raises:
        ConfigError: with every problem of file, overrides, references, values and rules.
    """
    problems: list[str] = []
    mapping = _read(path, text, problems)
    changes = [change for text in overrides for change in _parse_override(text, problems)]
    if mapping is None:
        raise _config_error(problems)
    for keys, value in changes:
        _apply(mapping, keys, value, problems)
    if path.suffix == ".json":
        # What chomp itself adds to config_resolved.json, so that the file can be loaded again.
        mapping.pop("derived", None)
    resolved = resolve_references(mapping)
    variables = resolved.mapping.pop("variables", None)
    if not isinstance(variables, dict | None):
        problems.append(f"variables: must be a mapping of names to values (got {shown(variables)})")
    problems += resolved.problems
    return _validate(resolved.mapping, resolved.left_out, problems)


def config_from_mapping(mapping: Mapping[str, Any]) -> Config:
    """Validate a mapping of sections, as read from `config_resolved.json`.

    Raises:
        ConfigError: with every problem of values and rules.
    """
    return _validate(mapping, frozenset(), [])


def config_text(path: Path) -> str:
    """Return the text of a config file.

    Raises:
        ConfigError: it can't be read, or is no text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError([f"{path}: can't be read: {error.strerror or error}"]) from error
    except UnicodeDecodeError as error:
        wrong = f"is not UTF-8 text (byte {error.start} is the first wrong one)"
        raise ConfigError([f"{path}: {wrong}"]) from error


def _read(path: Path, text: str | None, problems: list[str]) -> Values | None:
    try:
        parsed = parse_yaml(config_text(path) if text is None else text)
    except ConfigError as error:
        problems += error.problems
    except YamlError as error:
        problems.append(f"{path}:{error.line}:{error.column}: not valid YAML: {error.problem}")
    else:
        problems += [f"{key}: given twice, again in line {line}" for key, line in parsed.repeated]
        match parsed.value:
            case None:
                return {}
            case dict(values):
                return values
            case other:
                problems.append(f"{path}: must be a mapping of sections (got {shown(other)})")
    return None


def _parse_override(text: str, problems: list[str]) -> Iterable[tuple[list[str], object]]:
    name, equals, value_text = text.partition("=")
    keys = [key.strip() for key in name.split(".")]
    if keys[0].startswith("-"):
        problems.append(f"override {shown(text)}: write it without dashes: -o {text.lstrip('-')}")
        return
    if not equals or not all(keys):
        problems.append(f"override {shown(text)}: must have the form section.key=value")
        return
    try:
        parsed = parse_yaml(value_text)
    except YamlError as error:
        problems.append(
            f"{'.'.join(keys)}: override {shown(text)} is not valid YAML: {error.problem}"
        )
        return
    problems += [
        f"{'.'.join(keys)}.{key}: given twice in an override" for key, _ in parsed.repeated
    ]
    yield keys, parsed.value


def _apply(mapping: Values, keys: list[str], value: object, problems: list[str]) -> None:
    """Set a value; a mapping sets the keys that it names and leaves the others."""
    *sections, last = keys
    for depth, section in enumerate(sections, 1):
        if mapping.get(section) is None:
            mapping[section] = {}
        if not isinstance(mapping[section], dict):
            inner = ".".join(sections[:depth])
            what = "a value, not a section with keys"
            if isinstance(mapping[section], list):
                what = f"a list; give the whole of it (-o '{inner}=[...]')"
            problems.append(f"{'.'.join(keys)}: {inner} is {what}")
            return
        mapping = mapping[section]
    if isinstance(value, dict) and isinstance(mapping.get(last), dict):
        for key, inner in value.items():
            _apply(mapping[last], [key], inner, problems)
    else:
        mapping[last] = value


def _validate(mapping: Mapping[str, Any], invalid: frozenset[str], problems: list[str]) -> Config:
    given = in_steps(mapping)
    found = _check(given.mapping, invalid | given.left_out)
    lines = problems + found.lines
    if lines or not isinstance(found.sections, Config):
        raise _config_error(lines, found.sections, found.invalid)
    return found.sections


def _config_error(
    lines: Iterable[str],
    sections: Sections | None = None,
    invalid: frozenset[str] = frozenset(),
) -> ConfigError:
    # A line stays a line, whatever characters are in keys. Repeated ones: pydantic may have
    # several findings of one kind about one key.
    printable = (
        "".join(char if char.isprintable() else repr(char)[1:-1] for char in line) for line in lines
    )
    return InvalidConfigError(list(dict.fromkeys(printable)), sections, invalid)


class _Checked(NamedTuple):
    lines: list[str]
    """The problems."""
    sections: Sections | None
    """What can be used; a Config if all rules are obeyed."""
    invalid: frozenset[str]


def _check(mapping: Mapping[str, Any], invalid: frozenset[str]) -> _Checked:
    try:
        return _Checked([], Config.model_validate(mapping, context={"invalid": invalid}), invalid)
    except ValidationError as error:
        found = findings(error)
        lines = [finding.line for finding in found]
        details = error.errors(include_url=False)
    if all(detail["type"] == RULE_BROKEN for detail in details):
        return _Checked(lines, Sections.model_validate(mapping), invalid)
    # The rules have not run yet: let them judge what is valid, beside defaults for the rest.
    if not isinstance(mapping, Mapping):
        return _Checked(lines, None, invalid)
    rest = dict(mapping)
    for detail in details:
        rest = _without(rest, [str(part) for part in detail["loc"]])
    # A key that was misspelt keeps its default, which the user didn't choose: not judged either.
    meant = {finding.meant for finding in found if not _has(mapping, finding.meant)}
    checked = _check(rest, invalid | meant | {finding.invalid for finding in found})
    return checked._replace(lines=lines + checked.lines)


def _has(mapping: object, path: str) -> bool:
    for key in path.split("."):
        if not isinstance(mapping, Mapping) or key not in mapping:
            return False
        mapping = mapping[key]
    return True


def _without(mapping: Values, keys: Sequence[str]) -> Values:
    first, *inner = keys
    value = mapping.get(first)
    if inner and isinstance(value, dict):
        return {**mapping, first: _without(value, inner)}
    return {key: value for key, value in mapping.items() if str(key) != first}
