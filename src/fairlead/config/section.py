"""The base of every section: frozen, closed, documented by its docstrings."""

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticKnownError


class Section(BaseModel):
    """A group of options. Unknown keys are errors; values never change after parsing."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _own_defaults(cls, values: Any) -> Any:
        """Lay what this section's own defaults say under a part that is given: `kl.where` alone keeps `kl.coef`."""
        if not isinstance(values, dict):
            return values
        return values | {
            name: _laid_under(field.default.model_dump(exclude_unset=True), values[name])
            for name, field in cls.model_fields.items()
            if isinstance(field.default, Section) and isinstance(values.get(name), dict)
        }

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Without this, `lr: true` would be 1.0."""
        wanted = cls.model_fields[info.field_name or ""].annotation
        if isinstance(value, bool) and wanted in (int, float):
            raise PydanticKnownError("int_type" if wanted is int else "float_type")
        return value


def _laid_under(default: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """What is given, and what the default says beside it, at any depth."""
    both = {
        name: _laid_under(default[name], value)
        for name, value in given.items()
        if isinstance(value, dict) and isinstance(default.get(name), dict)
    }
    return default | given | both
