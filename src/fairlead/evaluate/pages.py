"""Templates to pages. Text that a model or a user wrote is escaped by the engine; only our own SVG is marked safe."""

from pathlib import Path
from typing import Any

import minijinja

TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, context: dict[str, Any]) -> str:
    """A page as HTML."""
    environment = minijinja.Environment(
        loader=lambda name: (TEMPLATES / name).read_text(encoding="utf-8"),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined_behavior="strict",
    )
    return environment.render_template(template, **context)
