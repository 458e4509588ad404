"""The doors in OpenAPI's words."""

from collections.abc import Sequence
from typing import Any

import msgspec

from fairlead.web.doors import Door

_ANSWERS = {"200": "done", "201": "made", "400": "a field that is unknown or out of its range", "401": "log in first",
            "403": "this right is missing, or the page's token", "404": "not there, or another person's",
            "409": "this key was used for something else", "413": "a body that is too large", "415": "no JSON",
            "429": "too many requests", "503": "the store is busy, nothing was saved"}  # fmt: skip


def described(doors: Sequence[Door]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Paths and schemas."""
    bodies = [door.body for door in doors if door.body is not None]
    shapes, schemas = msgspec.json.schema_components(bodies, ref_template="#/components/schemas/{name}")
    shape_of = dict(zip(bodies, shapes, strict=True))
    paths: dict[str, Any] = {}
    for door in doors:
        method: dict[str, Any] = {
            "summary": door.summary, "responses": {status: {"description": text} for status, text in _ANSWERS.items()},
            "security": [] if door.who == "anybody" else [{"session": []}, {"key": []}],
            "x-who": door.who,
        }  # fmt: skip
        if "{number:row}" in door.path:
            number = {"type": "integer", "minimum": 1}
            method["parameters"] = [{"name": "number", "in": "path", "required": True, "schema": number}]
        if door.body is not None:
            method["requestBody"] = {"required": True, "content": {"application/json": {"schema": shape_of[door.body]}}}
        paths.setdefault(door.path.replace(":row", ""), {})[door.method.lower()] = method
    return paths, schemas
