"""Options: values of the user's own, for what the user has registered."""

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, JsonValue, PlainSerializer, WithJsonSchema


class FrozenOptions(Mapping[str, Any]):
    """A mapping of JSON values that can't be changed, as the configuration that it is a part of.

    Lists in it are tuples.
    """

    def __init__(self, values: Mapping[str, Any]):
        self._values = {key: _frozen(value) for key, value in values.items()}

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return hash(json.dumps(_plain(self), sort_keys=True))

    def __repr__(self) -> str:
        return repr(_plain(self))


def _frozen(value: Any) -> Any:
    if isinstance(value, Mapping):
        return FrozenOptions(value)
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return list(map(_plain, value)) if isinstance(value, tuple) else value


Options = Annotated[
    Mapping[str, JsonValue],
    AfterValidator(FrozenOptions),
    PlainSerializer(_plain),
    WithJsonSchema({"type": "object"}),
]
