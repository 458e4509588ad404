"""Reading one field of a row: text, numbers, lists and turns, or the reason why it cannot be read. No torch here."""

import math
import re
from collections.abc import Mapping
from typing import Any

from fairlead.data.drafts import BadRowError
from fairlead.records import Message, Role

ROLES: Mapping[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "bot": "assistant",
    "model": "assistant",
}
_TOOL_ROLES = frozenset(
    ("function", "function_call", "function_response", "observation", "tool", "tool_call", "tool_response", "ipython")
)
NO_TOOLS = "tool calls are not supported"
HH_TURN = re.compile(r"\n\n(Human|Assistant):")


def required(row: dict[str, Any], key: str) -> Any:
    """The value of a field that must be there."""
    if row.get(key) is None:
        raise BadRowError(f"the field `{key}` is missing")
    return row[key]


def text(row: dict[str, Any], key: str, default: str | None = None) -> str:
    """A field that is text."""
    if default is not None and row.get(key) is None:
        return default
    return as_text(required(row, key), f"`{key}`")


def as_text(value: object, name: str) -> str:
    """A value that is text; `name` is how a reason calls it."""
    if not isinstance(value, str):
        raise BadRowError(f"{name} should be text and is a {type(value).__name__}")
    return value


def number(value: object, name: str) -> float:
    """A finite number, also written as text."""
    try:  # a CSV file holds text only
        found = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        raise BadRowError(f"{name} should be a number and is {value!r}")
    return found


def truth(value: object) -> bool | None:
    """True and false as JSON, as 1 and 0, or as words, which is how CSV has them; None for anything else."""
    return {"true": True, "1": True, "false": False, "0": False}.get(str(value).strip().lower())


def items(row: dict[str, Any], key: str) -> list[Any]:
    """A field that is a list."""
    value = required(row, key)
    if not isinstance(value, list):
        raise BadRowError(f"`{key}` should be a list and is a {type(value).__name__}")
    return value


def texts(row: dict[str, Any], key: str) -> tuple[str, ...]:
    """A field that is a list of texts."""
    return tuple(as_text(value, f"a text in `{key}`") for value in items(row, key))


# --- turns


def message(turn: object) -> Message:
    """One turn: {role, content} or {from, value}; a content may be a list of text parts."""
    if not isinstance(turn, dict):
        raise BadRowError(f"a turn should be an object and is a {type(turn).__name__}")
    name = turn.get("role") if turn.get("role") is not None else turn.get("from")
    if turn.get("tool_calls") or turn.get("function_call") or (isinstance(name, str) and name in _TOOL_ROLES):
        raise BadRowError(NO_TOOLS)
    role = ROLES.get(name) if isinstance(name, str) else None
    if role is None:
        raise BadRowError(f"unknown role {name!r}; known are {', '.join(ROLES)}")
    if role == "assistant" and any(turn.get(key) not in (None, 1) for key in ("weight", "loss_weight")):
        raise BadRowError("an answer with a weight other than 1 is not supported")
    content = turn.get("content") if turn.get("content") is not None else turn.get("value")
    if isinstance(content, list):
        content = "".join(map(_part, content))
    return Message(role, as_text(content, f"the content of a turn by {name}"))


def _part(part: object) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(part, dict) or kind != "text":
        if kind == "tool_call":
            raise BadRowError(NO_TOOLS)
        raise BadRowError("only text parts are supported in a content" + (f", not {kind}" if kind else ""))
    return as_text(part.get("text") if part.get("text") is not None else part.get("value"), "a text part")


def dialogue(turns: list[Any]) -> tuple[Message, ...]:
    """Turns in order, not yet checked."""
    return tuple(map(message, turns))


def prompt(row: dict[str, Any]) -> tuple[Message, ...]:
    """The field `prompt`: text, an hh-rlhf transcript, or a dialogue; with `system` before it where there is one."""
    value = required(row, "prompt")
    if isinstance(value, list):
        return dialogue(value)
    given = as_text(value, "`prompt`")
    return with_system(row, transcript(given) if HH_TURN.match(given) else (Message("user", given),))


def with_system(row: dict[str, Any], messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The messages behind the text of the field `system`, if that has any."""
    system = text(row, "system", "")
    return (Message("system", system), *messages) if system.strip() else messages


def transcript(given: str) -> tuple[Message, ...]:
    """Turns of a transcript that begins with a blank line and "Human:" (Bai et al. 2022); an open turn is dropped."""
    pieces = HH_TURN.split(given)
    if pieces[0].strip() or len(pieces) < 3:
        raise BadRowError('the transcript does not begin with a blank line and "Human:"')
    return named_turns(pieces)


def named_turns(pieces: list[str]) -> tuple[Message, ...]:
    """Turns of a text that was split at the names of the speakers; "Assistant:" at the end of a prompt is dropped."""
    pairs = list(zip(pieces[1::2], pieces[2::2], strict=True))
    if pairs[-1][0] == "Assistant" and not pairs[-1][1].strip():
        pairs.pop()
    return tuple(Message("user" if name == "Human" else "assistant", content.strip()) for name, content in pairs)
