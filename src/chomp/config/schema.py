"""The whole configuration: its sections, and the rules between them."""

from pydantic import ValidationInfo, model_validator

from chomp.config.sections import Sections
from chomp.config.validators.general import check_rules


class Config(Sections):
    """A run's configuration, complete and checked; all defaults give a valid one."""

    @model_validator(mode="after")
    def _obeys_the_rules_between_keys(self, info: ValidationInfo) -> "Config":
        check_rules(self, invalid=(info.context or {}).get("invalid", frozenset()))
        return self
