"""The base of every section: frozen, closed, documented by its docstrings."""

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator
from pydantic_core import PydanticKnownError


class Section(BaseModel):
    """A group of options. Unknown keys are errors; values never change after parsing."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Without this, `lr: true` would be 1.0."""
        wanted = cls.model_fields[info.field_name or ""].annotation
        if isinstance(value, bool) and wanted in (int, float):
            raise PydanticKnownError("int_type" if wanted is int else "float_type")
        return value
