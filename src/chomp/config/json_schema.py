"""The JSON schema of config files, for editors (yaml-language-server) and other programs."""

from typing import Any

from chomp.config.schema import Config
from chomp.config.token_lengths import LENGTHS, PATTERN

Schema = dict[str, Any]

_REFERENCE = {
    "type": "string",
    "pattern": r"\$\{[^{}]+\}",
    "description": "A reference to another value: ${train.seq_len} or ${variables.name}.",
}
_TOKENS = {
    "type": "string",
    "pattern": PATTERN,
    "description": "The steps that have at least so many tokens, padding included: 2.5B tokens.",
}
_CLASSES = {
    "train": "TrainConfig",
    "optim": "OptimConfig",
    "checkpoint": "CheckpointConfig",
    "data.stages": "Stage",
}
IN_TOKENS = {
    (_CLASSES[section], name) for section, _, name in (key.rpartition(".") for key in LENGTHS)
}
"""Sections' classes and keys."""


def config_schema() -> Schema:
    """Describe config files: all keys, `variables`, and `${...}` in the place of any value.

    It holds what a schema can say about single values; rules between keys are checked by
    `load_config` only.
    """
    schema = plain_schema()
    definitions = schema.pop("$defs")
    for section in (schema, *definitions.values()):
        title = section.pop("title")
        properties = section["properties"]
        section["properties"] = {
            name: _with_reference(properties[name], tokens=(title, name) in IN_TOKENS)
            for name in properties
        }
    schema["properties"]["variables"] = {
        "type": ["object", "null"],
        "description": "Your own values, for use elsewhere as ${variables.name}.",
    }
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "chomp config",
        **schema,
        "$defs": {"reference": _REFERENCE, "tokens": _TOKENS, **definitions},
    }


def plain_schema() -> Schema:
    """Describe the resolved config, as pydantic does."""
    return Config.model_json_schema()


def _with_reference(schema: Schema, *, tokens: bool) -> Schema:
    """Allow a `${...}` too, and null for a section whose keys are all commented out.

    Args:
        schema: of a key.
        tokens: whether its value may be in tokens.
    """
    inner = {key: schema[key] for key in schema if key not in ("title", "description", "default")}
    outer = {key: schema[key] for key in ("description", "default") if key in schema}
    choices = [_items_with_reference(choice) for choice in inner.get("anyOf", [inner])]
    if "$ref" in inner:
        choices.append({"type": "null"})
    if tokens:
        choices.append({"$ref": "#/$defs/tokens"})
    return {**outer, "anyOf": [*choices, {"$ref": "#/$defs/reference"}]}


def _items_with_reference(schema: Schema) -> Schema:
    if schema.get("type") != "array":
        return schema
    return {**schema, "items": {"anyOf": [schema["items"], {"$ref": "#/$defs/reference"}]}}
