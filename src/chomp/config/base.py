"""The base of all configuration sections, and the constrained types that they share."""

from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Interval, Len
from pydantic import BaseModel, ConfigDict, Field, model_validator

INT32_MAX = 2**31 - 1

Count = Annotated[int, Interval(gt=0, le=INT32_MAX)]
"""A size or a number of things: at least one. The bound keeps every index within int32."""
CountOrZero = Annotated[int, Interval(ge=0, le=INT32_MAX)]
Seed = Annotated[int, Interval(ge=0, lt=2**32)]
"""A seed that both JAX and Grain accept."""
TokenId = Annotated[int, Interval(ge=0, le=INT32_MAX)]
Positive = Annotated[float, Gt(0)]
NotNegative = Annotated[float, Ge(0)]
Rate = Annotated[float, Interval(ge=0, lt=1)]
"""A dropout rate or a decay factor: 1 would drop or keep everything."""
Name = Annotated[str, Len(min_length=1)]
Texts = Annotated[tuple[str, ...], Field(strict=False)]
"""A list in the file; a tuple in the frozen config (strict mode would refuse the list)."""
Dtype = Literal["float32", "bfloat16"]


class Section(BaseModel):
    """A group of keys: immutable, without unknown keys, without conversions between types."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        defer_build=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _empty_section_means_defaults(cls, value: Any) -> Any:
        # In YAML a section whose keys are all commented out reads as null.
        return {} if value is None else value
