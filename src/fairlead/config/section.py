"""The base of every section: frozen, closed, documented by its docstrings."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A group of options. Unknown keys are errors; values never change after parsing."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
