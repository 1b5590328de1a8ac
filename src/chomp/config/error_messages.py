"""From pydantic's findings to lines that say where, what, and what to write instead."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import NamedTuple, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from chomp.config.keys import OPTIONS, RENAMED, RETIRED, fields, known_paths, nearest_path
from chomp.config.registry import REGISTRIES
from chomp.config.sources import (
    KEYED,
    PLAIN,
    EvaluationSetConfig,
    FileSource,
    SourceConfig,
    Stage,
)
from chomp.config.token_lengths import LENGTHS
from chomp.config.validators.general import RULE_BROKEN

ENTRIES = {
    "data.sources": SourceConfig,
    "data.stages": Stage,
    "data.eval_sets": EvaluationSetConfig,
}
"""Keys that hold lists of mappings, and what these have."""


def shown(value: object) -> str:
    """Write a value the way a config file would, shortened."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case str():
            return repr(value if len(value) <= 60 else value[:57] + "...")
        case int() if abs(value) >= 10**30:
            return "a huge number"
        case int() | float():
            return str(value)
        case Mapping():
            return "a mapping"
        case list() | tuple():
            return "a list"
        case _:
            return f"a {type(value).__name__}"


class Finding(NamedTuple):
    """One line for the user, and the key whose value can't be used because of it."""

    line: str
    invalid: str = ""
    """Dotted path of the key with a wrong value, if that is the problem."""
    meant: str = ""
    """Dotted path that an unknown key was probably meant to be."""


def findings(error: ValidationError) -> list[Finding]:
    """Describe all that pydantic found."""
    return [_finding(detail) for detail in error.errors(include_url=False)]


def _finding(detail: ErrorDetails) -> Finding:
    # The form of an entry is no key.
    path = ".".join(str(part) for part in detail["loc"] if part not in (PLAIN, KEYED))
    path = next((key for key in OPTIONS if path.startswith(f"{key}.")), path)
    kind = detail["type"]
    if kind == RULE_BROKEN:
        return Finding(f"{path}: {detail['msg']}", path)
    if kind == "extra_forbidden" and KEYED in detail["loc"]:
        return Finding(f"unknown key '{path}'; an entry has: {', '.join(FileSource.model_fields)}")
    if kind == "extra_forbidden" and (entry := ENTRIES.get(".".join(map(str, detail["loc"][:2])))):
        fields_ = list(entry.model_fields)
        near = get_close_matches(str(detail["loc"][-1]), fields_, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"an entry has: {', '.join(fields_)}"
        return Finding(f"unknown key '{path}'; {hint}", path)
    if kind == "extra_forbidden":
        return _unknown(path)
    if kind == "invalid_key":
        return Finding(f"{path}: a key must be text")
    message = _float16(detail) if _is_float16(detail) else _requirement(detail)
    got = f"(got {shown(detail['input'])}){_fix(detail)}"
    return Finding(f"{path or 'config'}: {message} {got}", path)


def _unknown(path: str) -> Finding:
    if path in RETIRED:
        return Finding(f"{path}: no longer exists, leave it out: {RETIRED[path]}")
    if path in RENAMED:
        new = RENAMED[path]
        return Finding(f"unknown key '{path}'; write '{new}'", meant=new)
    if path in known_paths():
        section, _, name = path.rpartition(".")
        hint = f"dotted names are for overrides, in a file write '{name}' inside '{section}'"
        return Finding(f"unknown key '{path}'; {hint}", meant=path)
    nearest = nearest_path(path)
    if nearest is None:
        section = path.rpartition(".")[0]
        inside = ", ".join(_children(section))
        hint = f"{section} has: {inside}" if section else f"the sections are: {inside}, variables"
    else:
        hint = f"did you mean '{nearest}'?"
    return Finding(f"unknown key '{path}'; {hint}", meant=nearest or "")


def _children(section: str) -> list[str]:
    return [
        name
        for outer, _, name in (known.rpartition(".") for known in known_paths())
        if outer == section
    ]


def _float16(detail: ErrorDetails) -> str:
    return (
        "float16 is not supported, as ComplexEMA, normalisation and the long-context state are "
        f"not stable in it; write {detail.get('ctx', {})['expected']}"
    )


def _is_float16(detail: ErrorDetails) -> bool:
    return (
        detail["type"] == "literal_error"
        and str(detail["loc"][-1]).endswith("_dtype")
        and str(detail["input"]).lower() in ("float16", "fp16", "f16", "half")
    )


def _requirement(detail: ErrorDetails) -> str:
    limits = detail.get("ctx", {})
    match detail["type"]:
        case "greater_than":
            return f"must be greater than {limits['gt']:.10g}"
        case "greater_than_equal":
            return f"must be at least {limits['ge']:.10g}"
        case "less_than":
            return f"must be less than {limits['lt']:.10g}"
        case "less_than_equal":
            return f"must be at most {limits['le']:.10g}"
        case "finite_number":
            return "must be a finite number"
        case "int_type" | "int_from_float":
            return "must be a whole number"
        case "float_type":
            return "must be a number"
        case "bool_type":
            return "must be true or false"
        case "string_type":
            return "must be text"
        case "tuple_type" | "list_type":
            return "must be a list"
        case "model_type" | "model_attributes_type" | "dict_type":
            return "must be a section, a mapping of keys to values"
        case "literal_error":
            return f"must be {limits['expected']}"
        case "missing":
            return "must be given"
        case "string_pattern_mismatch":
            return "must be letters, digits, '_', '.' and '-', and begin with a letter or digit"
        case "too_short" | "string_too_short":
            return "must not be empty"
        case _:
            return detail["msg"]


def _fix(detail: ErrorDetails) -> str:
    """Say what to write, where the value shows what was meant."""
    kind, value = detail["type"], detail["input"]
    is_name = kind == "literal_error" and isinstance(value, str)
    if is_name and ".".join(map(str, detail["loc"][:2])) in REGISTRIES:
        return "; for one of your own give its module: --plugin MODULE"
    if detail["loc"][-1:] == ("init_mode",) and value == "none":
        return "; a new model is always initialised"
    if value is None:
        return "; leave the key out for its default"
    if kind in ("int_type", "int_from_float") and isinstance(value, float) and value.is_integer():
        return f"; write {int(value)}"
    if kind == "int_type" and isinstance(value, str) and "token" in value and _is_length(detail):
        return "; an amount of tokens is a number, K, M or B if you like, and the word: 2.5B tokens"
    if kind in ("int_type", "float_type") and isinstance(value, str) and _is_number(value):
        return "; write it without quotes"
    if kind == "bool_type" and isinstance(value, str):
        return {"yes": "; write true", "on": "; write true", "no": "; write false"}.get(
            value.lower(), ""
        )
    if kind == "string_type" and isinstance(value, bool | int | float):
        return "; put it in quotes"
    if kind == "tuple_type" and isinstance(value, str):
        parts = [part.strip() for part in value.split(",") if part.strip()]
        return f"; write [{', '.join(map(shown, parts))}]"
    nothing = ("", "none", "off") if isinstance(value, str) else (0,)
    word = value.lower() if isinstance(value, str) else value
    if not isinstance(value, bool) and word in nothing and _may_be_null(detail["loc"]):
        return "; write null for none"
    if kind in ("int_type", "float_type") and value in ("None", "none"):
        return "; write 0 where that means never"
    return ""


def _may_be_null(loc: tuple[int | str, ...]) -> bool:
    names = [part for part in loc if isinstance(part, str)]
    field = next((field for path, field in fields() if path == ".".join(names)), None)
    return field is not None and type(None) in get_args(field.annotation)


def _is_length(detail: ErrorDetails) -> bool:
    return ".".join(part for part in detail["loc"] if isinstance(part, str)) in LENGTHS


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
