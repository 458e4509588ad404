"""Errors as OpenAI's clients expect them. They hold what the client sent and what was wanted, nothing of ours."""

import re
from dataclasses import dataclass, field

import msgspec


@dataclass
class HttpError(Exception):
    """An answer that is an error."""

    status: int
    message: str
    type: str = "invalid_request_error"
    param: str | None = None
    code: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def body(self) -> bytes:
        """The JSON of the answer."""
        said = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return msgspec.json.encode({"error": said})


_UNKNOWN = re.compile(r"Object contains unknown field `(?P<name>[^`]*)`")
_MISSING = re.compile(r"Object missing required field `(?P<name>[^`]*)`")
_AT = re.compile(r" - at (`key` in )?`\$\.?(?P<path>[^`]*)`$")


def of_invalid(error: msgspec.MsgspecError) -> HttpError:
    """What does not fit the schema, by the name of the field."""
    text = str(error)
    at = _AT.search(text)
    path = at["path"] if at else ""
    named = _UNKNOWN.search(text) or _MISSING.search(text)
    if named:
        path = f"{path}.{named['name']}" if path else named["name"]
    if isinstance(error, msgspec.ValidationError):
        code = "unknown_parameter" if _UNKNOWN.search(text) else "invalid_value"
        return HttpError(400, _AT.sub("", text), param=path or None, code=code)
    return HttpError(400, f"the body is not JSON: {text}", code="invalid_json")


def too_long(num_prompt: int, num_new: int, context: int, param: str) -> HttpError:
    """A prompt, or prompt and answer, longer than the model's context."""
    return HttpError(
        400,
        f"this model's context is {context} tokens; the prompt has {num_prompt} and {num_new} were asked for",
        param=param,
        code="context_length_exceeded",
    )


def no_model(name: str) -> HttpError:
    """A model that is not served."""
    return HttpError(404, f"the model {name[:200]!r} is not served here", param="model", code="model_not_found")


def not_a_policy(name: str) -> HttpError:
    """A reward model that is asked for an answer."""
    what = f"{name!r} is a reward model, which gives scores and no answers: POST /v1/score"
    return HttpError(400, what, param="model", code="wrong_model")


def not_a_reward_model(name: str) -> HttpError:
    """A policy that is asked for scores."""
    what = f"{name!r} is a policy, which answers and gives no scores: POST /v1/chat/completions"
    return HttpError(400, what, param="model", code="wrong_model")


def busy(seconds: int) -> HttpError:
    """More requests wait than may."""
    return HttpError(
        429, "too many requests wait", "rate_limit_error", code="queue_full", headers={"Retry-After": str(seconds)}
    )
