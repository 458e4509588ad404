"""A configuration back as a recipe that reads the same."""

from io import StringIO
from typing import Any

from ruamel.yaml import YAML

from fairlead.config.section import Section


def recipe_text(config: Section) -> str:
    """YAML of every option that is set, defaults included; sections that are None are left out."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.width = 120
    yaml.sort_base_mapping_type_on_output = False  # the order of the code is the order of the journey
    text = StringIO()
    yaml.dump(_without_none(config.model_dump(mode="json")), text)
    return text.getvalue()


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return [_without_none(item) for item in value] if isinstance(value, list) else value
