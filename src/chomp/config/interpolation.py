"""References between values: `${train.seq_len}`, `${variables.x}`."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from chomp.config.error_messages import shown
from chomp.config.keys import fields, nearest_path
from chomp.errors import ConfigError

Path = tuple[str, ...]

_REFERENCE = re.compile(r"\$\$\{|\$\{([^{}]*)\}")
_OLD_NAME = r"variables(?:\.[\w-]+)+"
_OLD_REFERENCE = re.compile(rf"\{{\$({_OLD_NAME})\}}|(?<!\$)\$({_OLD_NAME})")
_LONGEST = 1_000_000


class Resolved(NamedTuple):
    """A mapping without references; keys whose references lead nowhere are left out."""

    mapping: dict[str, Any]
    problems: list[str]
    left_out: frozenset[str]


def resolve_references(mapping: Mapping[str, Any]) -> Resolved:
    """Replace all references; a key that isn't in `mapping` gives its default.

    Raises:
        ConfigError: where Python gives up on a chain of references.
    """
    resolver = _Resolver(mapping)
    try:
        resolved = resolver.mapping(mapping, ())
    except RecursionError as error:
        raise ConfigError(["config: values or references are nested too deeply"]) from error
    return Resolved(resolved, resolver.problems, frozenset(resolver.left_out))


class _UnresolvedError(Exception):
    """The value has a problem that is already in the list."""


class _Resolver:
    def __init__(self, root: Mapping[str, Any]):
        self.root = root
        self.defaults = dict(fields())
        self.problems: list[str] = []
        self.left_out: set[str] = set()
        self.done: dict[Path, object] = {}
        self.failed: set[Path] = set()
        self.active: list[Path] = []

    def mapping(self, values: Mapping[str, Any], path: Path) -> dict[str, Any]:
        resolved = {}
        for key in values:
            try:
                resolved[key] = self.at((*path, key), values[key])
            except _UnresolvedError:
                self.left_out.add(".".join((*path, key)))
        return resolved

    def at(self, path: Path, raw: object) -> object:
        """Resolve the value at `path`, once."""
        if path in self.failed:
            raise _UnresolvedError
        if path in self.done:
            return self.done[path]
        if path in self.active:
            cycle = [*self.active[self.active.index(path) :], path]
            self.failed.update(cycle)
            self.report(path, "circular reference: " + " -> ".join(".".join(p) for p in cycle))
        self.active.append(path)
        try:
            self.done[path] = self.value(raw, path)
        except _UnresolvedError:
            self.failed.add(path)
            raise
        finally:
            self.active.pop()
        return self.done[path]

    def value(self, raw: object, path: Path) -> object:
        match raw:
            case dict() if len(raw) == 1 and _OLD_REFERENCE.fullmatch(
                old := f"{{{next(iter(raw))}}}"
            ):
                self.old_reference(old, path)  # YAML reads {$variables.x} as a mapping.
            case dict():
                return self.mapping(raw, path)
            case list():
                return [self.value(item, (*path, str(i))) for i, item in enumerate(raw)]
            case str():
                return self.text(raw, path)
        return raw

    def text(self, raw: str, path: Path) -> object:
        if _OLD_REFERENCE.search(raw):
            self.old_reference(raw, path)
        whole = _REFERENCE.fullmatch(raw)
        if whole and whole[1] is not None:
            return self.target(whole[1], path)
        text = _REFERENCE.sub(lambda match: self.part(match, path), raw)
        if len(text) > max(len(raw), _LONGEST):
            # References to references that double a text each time would fill the memory.
            self.report(path, f"becomes longer than {_LONGEST} characters by its references")
        return text

    def part(self, match: re.Match[str], path: Path) -> str:
        if match[1] is None:
            return "${"
        target = self.target(match[1], path)
        if isinstance(target, str):
            return target
        if isinstance(target, dict | list | tuple):
            self.report(path, f"{match[0]} is {shown(target)}, which can't be put into text")
        return shown(target)

    def target(self, name: str, path: Path) -> object:
        target = tuple(name.strip().split("."))
        values: object = self.root
        for depth, part in enumerate(target):
            if depth and isinstance(values, str):
                values = self.at(target[:depth], values)  # The section is a reference itself.
            if not isinstance(values, dict | Mapping) or part not in values:
                return self.default(".".join(target), path)
            values = values[part]
        return self.at(target, values)

    def default(self, name: str, path: Path) -> object:
        if name in self.defaults:
            return self.defaults[name].get_default(call_default_factory=True)
        near = nearest_path(name, _paths(self.root))
        hint = f"; did you mean ${{{near}}}?" if near else ""
        self.report(path, f"refers to ${{{name}}}, which does not exist{hint}")

    def old_reference(self, raw: str, path: Path) -> None:
        new = _OLD_REFERENCE.sub(lambda match: f"${{{match[1] or match[2]}}}", raw)
        self.report(
            path, f"references are written ${{variables.x}}: write {shown(new)} (got {shown(raw)})"
        )

    def report(self, path: Path, message: str) -> None:
        self.problems.append(f"{'.'.join(path)}: {message}")
        raise _UnresolvedError


def _paths(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    paths = []
    for key, value in values.items():
        paths.append(prefix + key)
        if isinstance(value, dict):
            paths += _paths(value, f"{prefix}{key}.")
    return paths
