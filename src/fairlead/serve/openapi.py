"""The OpenAPI document, made from the schema that requests are read with."""

from collections.abc import Mapping
from typing import Any

import msgspec

from fairlead import __version__
from fairlead.serve.schema import ChatRequest, CompletionRequest, ScoreRequest

_ERRORS = {
    "400": "a field that is unknown or out of its range", "401": "no key, or a wrong one", "404": "no such model",
    "413": "a body that is too large", "415": "no JSON", "429": "too many requests wait; see Retry-After",
}  # fmt: skip


def document(paths: Mapping[str, Any], schemas: Mapping[str, Any]) -> dict[str, Any]:
    """OpenAPI 3.1 of the models' routes, and of others whose paths and schemas are given."""
    (chat, complete, score), components = msgspec.json.schema_components(
        (ChatRequest, CompletionRequest, ScoreRequest), ref_template="#/components/schemas/{name}"
    )
    found = {"200": {"description": "found"}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "fairlead", "version": __version__},
        "paths": {
            "/v1/chat/completions": {"post": _post("Answer a dialogue.", chat)},
            "/v1/completions": {"post": _post("Go on with a text.", complete)},
            "/v1/score": {"post": _post("Score dialogues by a reward model.", score)},
            "/v1/models": {"get": {"summary": "The models that are served.", "responses": found}},
            "/v1/models/{name}": {
                "get": {
                    "summary": "One of them.",
                    "parameters": [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}],
                    "responses": found | {"404": {"description": "no such model"}},
                }
            },
            "/health": {"get": {"summary": "Whether every model says a token, or scores a word.", "responses": found}},
            "/metrics": {"get": {"summary": "Prometheus' figures.", "responses": found}},
            "/openapi.json": {"get": {"summary": "This document.", "responses": found}},
            **paths,
        },
        "components": {
            "schemas": {**components, **schemas},
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer"},
                "session": {"type": "apiKey", "in": "cookie", "name": "fairlead_session"},
            },
        },
        "security": [{"key": []}, {}],
    }


def _post(summary: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "responses": {
            "200": {"description": "the answer, or its events where `stream` is true"},
            **{status: {"description": text} for status, text in _ERRORS.items()},
        },
    }
