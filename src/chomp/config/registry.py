"""Names that a configuration gives to models, data sources and trackers: chomp's and the user's."""

from typing import Annotated, Any, Generic, TypeVar

from pydantic import BeforeValidator, WithJsonSchema
from pydantic_core import PydanticKnownError

from chomp.errors import ConfigError

T = TypeVar("T")


class Registry(Generic[T]):
    """Things registered under names, next to the names that are chomp's own.

    Args:
        key: of the configuration, which holds the names.
        own: the names that are chomp's.
    """

    def __init__(self, key: str, own: tuple[str, ...] = ()):
        self.key, self.own = key, own
        self._registered: dict[str, T] = {}

    def register(self, name: str, thing: T) -> None:
        """Let `name` stand for `thing`, and no longer for what was registered by it before.

        Raises:
            ConfigError: the name is empty, or chomp's own.
        """
        if not name or name in self.own:
            what = "chomp's own; take another" if name else "no name"
            raise ConfigError([f"{self.key}: {name!r} can't be registered: it is {what}"])
        self._registered[name] = thing

    def __getitem__(self, name: str) -> T:
        return self._registered[name]

    def __contains__(self, name: object) -> bool:
        return name in self._registered

    def check(self, value: Any) -> Any:
        """Return a value of the key, if it is one of the names.

        Raises:
            PydanticKnownError: it is none; says which there are.
        """
        names = [*self.own, *self._registered]
        if value in names:
            return value
        *first, last = map(repr, names)
        expected = f"{', '.join(first)} or {last}"
        raise PydanticKnownError("literal_error", {"expected": expected})

    def schema(self) -> dict[str, Any]:
        """Return the JSON schema of a value: chomp's names, or any other."""
        names = [{"enum": list(self.own), "type": "string"}] if self.own else []
        return {"anyOf": [*names, {"type": "string"}]} if names else {"type": "string"}


MODELS: Registry[Any] = Registry("model.backend", ("megalodon", "dummy"))
SOURCES: Registry[Any] = Registry(
    "data.backend", ("hf", "files", "local_text", "builtin", "tokens")
)
TRACKERS: Registry[Any] = Registry("logging.trackers", ("jsonl", "tensorboard", "mlflow", "wandb"))
REGISTRIES = {registry.key: registry for registry in (MODELS, SOURCES, TRACKERS)}

ModelName = Annotated[str, BeforeValidator(MODELS.check), WithJsonSchema(MODELS.schema())]
SourceName = Annotated[str, BeforeValidator(SOURCES.check), WithJsonSchema(SOURCES.schema())]
TrackerName = Annotated[str, BeforeValidator(TRACKERS.check), WithJsonSchema(TRACKERS.schema())]
