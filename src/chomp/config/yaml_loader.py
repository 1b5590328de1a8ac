"""YAML as configs use it: the plain part of the language, with the number rules of YAML 1.2.

PyYAML follows YAML 1.1, in which `1e-3` is text, `010` is eight, `12:30` is 750 and `no` is false.
"""

import re
from typing import Any

import yaml
from yaml.composer import Composer, ComposerError
from yaml.parser import Parser
from yaml.reader import Reader, ReaderError
from yaml.resolver import BaseResolver
from yaml.scanner import Scanner


class YamlError(Exception):
    """The text is not YAML, or not the part of it that configs use.

    Args:
        problem: what is wrong.
        line: number of the line, from 1.
        column: number of the column, from 1.
    """

    def __init__(self, problem: str, line: int = 1, column: int = 1):
        self.problem, self.line, self.column = problem, line, column
        super().__init__(f"{line}:{column}: {problem}")


class Parsed:
    """The values of a YAML text, and the keys that it gives more than once."""

    def __init__(self, value: object, repeated: list[tuple[str, int]]):
        self.value = value
        self.repeated = repeated
        """Dotted path and line of each key that was there before."""


def parse_yaml(text: str) -> Parsed:
    """Read one YAML document.

    Raises:
        YamlError: always with the place.
    """
    text = text.removeprefix("\ufeff")
    try:
        node = _Loader(text).get_single_node()
        repeated: list[tuple[str, int]] = []
        return Parsed(None if node is None else _value(node, (), repeated), repeated)
    except ReaderError as error:
        before = text[: error.position] if isinstance(error.position, int) else ""
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        raise YamlError(
            f"character #x{ord(text[len(before)]):04x} is not allowed", line, column
        ) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = ", ".join(part for part in (error.context, error.problem) if part)
        raise YamlError(problem, *((mark.line + 1, mark.column + 1) if mark else ())) from error
    except RecursionError as error:
        raise YamlError("nested too deeply") from error


class _Loader(Reader, Scanner, Parser, Composer, BaseResolver):
    """PyYAML's loader up to nodes, with our own rules for plain scalars."""

    def __init__(self, text: str):
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        BaseResolver.__init__(self)

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        # One way to say a thing twice is enough, and aliases can also build endless values.
        if self.check_event(yaml.AliasEvent):
            raise ComposerError(
                problem="aliases (*name) are not supported: write ${variables.name}",
                problem_mark=self.peek_event().start_mark,
            )
        return super().compose_node(parent, index)


_TAG = "tag:yaml.org,2002:"
_PLAIN = (
    ("null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    ("bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")),
    ("int", re.compile(r"^[-+]?[0-9][0-9_]*$"), list("-+0123456789")),
    (
        "float",
        re.compile(
            r"^(?:[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?"
            r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
        ),
        list("-+0123456789."),
    ),
)
for _name, _pattern, _first in _PLAIN:
    _Loader.add_implicit_resolver(_TAG + _name, _pattern, _first)


def _value(node: yaml.Node, path: tuple[str, ...], repeated: list[tuple[str, int]]) -> Any:
    if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
        return _mapping(node, path, repeated)
    if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
        return [_value(item, (*path, str(i)), repeated) for i, item in enumerate(node.value)]
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node)
    raise _refused(f"tag {_short(node.tag)} is not supported", node)


def _mapping(node: yaml.MappingNode, path: tuple[str, ...], repeated: list[tuple[str, int]]) -> Any:
    values: dict[str, Any] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise _refused("a key must be plain text, not a list or mapping", key_node)
        key = key_node.value  # As written: `on` and `1` are names like any other.
        if key in values:
            repeated.append((".".join((*path, key)), key_node.start_mark.line + 1))
        values[key] = _value(value_node, (*path, key), repeated)
    return values


def _scalar(node: yaml.ScalarNode) -> object:
    text = node.value
    plain = text.replace("_", "").lower()
    try:
        match node.tag.removeprefix(_TAG):
            case "str":
                return text
            case "null":
                return None
            case "bool":
                return plain == "true"
            case "int":
                return int(plain)
            case "float":
                return float(re.sub(r"\.(inf|nan)", r"\1", plain))
            case _:
                raise _refused(f"tag {_short(node.tag)} is not supported", node)
    except ValueError as error:
        # `!!int x`, or more digits than Python converts.
        raise _refused(f"{text[:20]!r} is not a number of type {_short(node.tag)}", node) from error


def _short(tag: str) -> str:
    return tag.replace(_TAG, "!!")


def _refused(problem: str, node: yaml.Node) -> YamlError:
    return YamlError(problem, node.start_mark.line + 1, node.start_mark.column + 1)
