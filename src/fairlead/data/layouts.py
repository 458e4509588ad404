"""The shapes that rows of chat data come in, told apart by their keys, and what each means. No torch here."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from fairlead.data.drafts import BadRowError, Draft
from fairlead.records import Message, Role

Kind = Literal["conversations", "preferences", "prompts", "labelled answers"]

_ROLES: Mapping[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
}
_TURN = re.compile(r"\n\n(Human|Assistant):")


@dataclass(frozen=True, slots=True)
class Layout:
    """One shape of rows: its name, what it holds, how it looks, how to recognise it and how to read it."""

    name: str
    kind: Kind
    looks_like: str
    matches: Callable[[dict[str, Any]], bool]
    draft: Callable[[dict[str, Any]], Draft]


def detect(row: dict[str, Any]) -> Layout | None:
    """The layout of a row by its keys and the types of its values, or None."""
    return next((layout for layout in LAYOUTS if layout.matches(row)), None)


# --- reading fields


def _get(row: dict[str, Any], key: str) -> Any:
    if row.get(key) is None:
        raise BadRowError(f"the field `{key}` is missing")
    return row[key]


def _string(row: dict[str, Any], key: str, default: str | None = None) -> str:
    if default is not None and row.get(key) is None:
        return default
    return _as_string(_get(row, key), f"`{key}`")


def _as_string(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise BadRowError(f"{name} should be text and is a {type(value).__name__}")
    return value


def _grade(value: object, name: str) -> float:
    try:  # a CSV file holds text only
        number = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise BadRowError(f"{name} should be a number and is {value!r}")
    return number


def _list(row: dict[str, Any], key: str) -> list[Any]:
    value = _get(row, key)
    if not isinstance(value, list):
        raise BadRowError(f"`{key}` should be a list and is a {type(value).__name__}")
    return value


def _message(turn: object) -> Message:
    """One turn: {role, content} or {from, value}; a content may be a list of text parts."""
    if not isinstance(turn, dict):
        raise BadRowError(f"a turn should be an object and is a {type(turn).__name__}")
    name = turn.get("role") if turn.get("role") is not None else turn.get("from")
    role = _ROLES.get(name) if isinstance(name, str) else None
    if role is None:
        raise BadRowError(f"unknown role {name!r}; known are {', '.join(_ROLES)}")
    if turn.get("tool_calls"):
        raise BadRowError("tool calls are not supported")
    if role == "assistant" and any(turn.get(key) not in (None, 1) for key in ("weight", "loss_weight")):
        raise BadRowError("an answer with a weight other than 1 is not supported")
    content = turn.get("content") if turn.get("content") is not None else turn.get("value")
    if isinstance(content, list):
        content = "".join(_part(part) for part in content)
    return Message(role, _as_string(content, f"the content of a turn by {name}"))


def _part(part: object) -> str:
    if not isinstance(part, dict) or part.get("type") != "text":
        raise BadRowError("only text parts are supported in a content")
    return _as_string(part.get("text") if part.get("text") is not None else part.get("value"), "a text part")


def _dialogue(turns: list[Any]) -> tuple[Message, ...]:
    return tuple(_message(turn) for turn in turns)


def _prompt(row: dict[str, Any]) -> tuple[Message, ...]:
    """The field `prompt`: text, an hh-rlhf transcript, or a dialogue; with `system` before it where there is one."""
    value = _get(row, "prompt")
    if isinstance(value, list):
        return _dialogue(value)
    text = _as_string(value, "`prompt`")
    return _with_system(row, _transcript(text) if _TURN.match(text) else (Message("user", text),))


def _with_system(row: dict[str, Any], messages: tuple[Message, ...]) -> tuple[Message, ...]:
    system = _string(row, "system", "")
    return (Message("system", system), *messages) if system.strip() else messages


def _transcript(text: str) -> tuple[Message, ...]:
    """Turns of a transcript that begins with a blank line and "Human:" (Bai et al. 2022); an open turn is dropped."""
    pieces = _TURN.split(text)
    if pieces[0].strip() or len(pieces) < 3:
        raise BadRowError('the transcript does not begin with a blank line and "Human:"')
    pairs = list(zip(pieces[1::2], pieces[2::2], strict=True))
    if pairs[-1][0] == "Assistant" and not pairs[-1][1].strip():
        pairs.pop()  # "Assistant:" at the end of a prompt
    return tuple(Message("user" if name == "Human" else "assistant", content.strip()) for name, content in pairs)


# --- one reader per layout


def _alpaca_prompt(row: dict[str, Any]) -> tuple[Message, ...]:
    messages: list[Message] = []
    for exchange in _list(row, "history") if row.get("history") else ():
        if not isinstance(exchange, list) or len(exchange) != 2:
            raise BadRowError("`history` should be a list of [question, answer]")
        question, answer = (_as_string(text, "a text in `history`") for text in exchange)
        messages += [Message("user", question), Message("assistant", answer)]
    instruction, given = _string(row, "instruction"), _string(row, "input", "")
    messages.append(Message("user", f"{instruction}\n{given}" if given.strip() else instruction))
    return _with_system(row, tuple(messages))


def _alpaca(row: dict[str, Any]) -> Draft:
    return Draft((*_alpaca_prompt(row), Message("assistant", _string(row, "output"))))


def _alpaca_ranked(row: dict[str, Any]) -> Draft:
    outputs = _list(row, "output")
    return Draft(_alpaca_prompt(row), tuple(_as_string(text, "a text in `output`") for text in outputs))


def _prompt_completion(row: dict[str, Any]) -> Draft:
    completion = _get(row, "completion")
    if isinstance(completion, list):
        return Draft((*_prompt(row), *_dialogue(completion)))
    # The format of GPT-3 fine-tuning: a space first, the end token written out at the end
    answer = _as_string(completion, "`completion`").strip().removesuffix("<|endoftext|>").strip()
    return Draft((*_prompt(row), Message("assistant", answer)))


def _turns(row: dict[str, Any]) -> tuple[Message, ...]:
    key = "messages" if row.get("messages") is not None else "conversations"
    messages = _dialogue(_list(row, key))
    return messages if messages[:1] and messages[0].role == "system" else _with_system(row, messages)


def _conversation(row: dict[str, Any]) -> Draft:
    return Draft(_turns(row))


def _question_answer(row: dict[str, Any]) -> Draft:
    return Draft((Message("user", _string(row, "question")), Message("assistant", _string(row, "answer"))))


def _labelled(row: dict[str, Any]) -> Draft:
    draft = _prompt_completion(row) if row.get("completion") is not None else _conversation(row)
    labels = [label for key in ("label", "kto_tag") if (label := _truth(row.get(key))) is not None]
    return replace(draft, desirable=labels[0] if labels else None)


def _truth(value: object) -> bool | None:
    """True and false as JSON, as 1 and 0, or as words, which is how CSV has them; None for anything else."""
    return {"true": True, "1": True, "false": False, "0": False}.get(str(value).strip().lower())


def _answer(row: dict[str, Any], key: str) -> str:
    value = _get(row, key)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, str):
        return value
    message = _message(value)
    if message.role != "assistant":
        raise BadRowError(f"`{key}` should be an answer and is a {message.role} turn")
    return message.content


def _pair_grades(row: dict[str, Any]) -> tuple[float, ...]:
    """The scores of chosen and rejected, where a row has them (UltraFeedback, Cui et al. 2023)."""
    keys = ("score_chosen", "score_rejected")
    if any(row.get(key) is None for key in keys):
        return ()
    better, worse = (_grade(row[key], f"`{key}`") for key in keys)
    if worse > better:
        raise BadRowError("the rejected response has the higher score")
    return better, worse


def _conversation_pair(row: dict[str, Any]) -> Draft:
    return Draft(_turns(row), (_answer(row, "chosen"), _answer(row, "rejected")), _pair_grades(row))


def _pair(row: dict[str, Any]) -> Draft:
    return Draft(_prompt(row), (_answer(row, "chosen"), _answer(row, "rejected")), _pair_grades(row))


def _graded(row: dict[str, Any]) -> Draft:
    responses = tuple(_as_string(text, "a text in `responses`") for text in _list(row, "responses"))
    grades = tuple(_grade(value, "a number in `scores`") for value in _list(row, "scores"))
    if len(grades) != len(responses) or not grades:
        raise BadRowError(f"there are {len(responses)} responses and {len(grades)} scores")
    return Draft(_prompt(row), responses, grades)


def _graded_one(row: dict[str, Any]) -> Draft:
    key = "score" if row.get("score") is not None else "helpfulness"
    return Draft(_prompt(row), (_string(row, "response"),), (_grade(row[key], f"`{key}`"),))


def _rm_static(row: dict[str, Any]) -> Draft:
    return Draft(_prompt(row), (_string(row, "chosen").strip(), _string(row, "rejected").strip()))


def _hh(row: dict[str, Any]) -> Draft:
    chosen, rejected = (_transcript(_string(row, key)) for key in ("chosen", "rejected"))
    return _split_common(chosen, rejected)


def _dialogue_pair(row: dict[str, Any]) -> Draft:
    keys = ("chosen", "rejected") if row.get("chosen") is not None else ("chosen_messages", "rejected_messages")
    chosen, rejected = (_dialogue(_list(row, key)) for key in keys)
    return replace(_split_common(chosen, rejected), grades=_pair_grades(row))


def _split_common(chosen: tuple[Message, ...], rejected: tuple[Message, ...]) -> Draft:
    """Two whole dialogues that differ in their last turn alone."""
    for name, messages in (("chosen", chosen), ("rejected", rejected)):
        if not messages or messages[-1].role != "assistant":
            raise BadRowError(f"{name} does not end with an answer")
    if chosen[:-1] != rejected[:-1]:
        raise BadRowError("chosen and rejected have different prompts")
    return Draft(chosen[:-1], (chosen[-1].content, rejected[-1].content))


def _answers_pair(row: dict[str, Any]) -> Draft:
    question = Message("user", _string(row, "question"))
    return Draft((question,), (_string(row, "response_j"), _string(row, "response_k")))


def _only_prompt(row: dict[str, Any]) -> Draft:
    if row.get("prompt") is not None:
        return Draft(_prompt(row))
    if row.get("user_prompt") is not None:
        return Draft((Message("user", _string(row, "user_prompt")),))
    return Draft(_alpaca_prompt(row))


# --- telling them apart


def _has(*keys: str) -> Callable[[dict[str, Any]], bool]:
    return lambda row: all(row.get(key) is not None for key in keys)


def _is_list_of_turns(value: object) -> bool:
    return isinstance(value, list) and len(value) > 1 and all(isinstance(turn, dict) for turn in value)


def _is_pair_of_texts(row: dict[str, Any]) -> bool:
    return isinstance(row.get("chosen"), str) and isinstance(row.get("rejected"), str)


def _is_conversation_pair(row: dict[str, Any]) -> bool:
    return _has("chosen", "rejected")(row) and (_has("conversations")(row) or _has("messages")(row))


def _is_dialogue_pair(row: dict[str, Any]) -> bool:
    return _has("chosen_messages", "rejected_messages")(row) or (
        _is_list_of_turns(row.get("chosen")) and _is_list_of_turns(row.get("rejected"))
    )


def _is_labelled(row: dict[str, Any]) -> bool:
    """Rows for KTO: learning from them as if every answer were good would teach the bad ones."""
    dialogue = any(_has(*keys)(row) for keys in (("messages",), ("conversations",), _COMPLETION))
    return dialogue and any(_truth(row.get(key)) is not None for key in ("label", "kto_tag"))


def _is_graded_one(row: dict[str, Any]) -> bool:
    return _has("prompt", "response")(row) and any(row.get(key) is not None for key in ("score", "helpfulness"))


def _is_alpaca_ranked(row: dict[str, Any]) -> bool:
    return _has("instruction")(row) and isinstance(row.get("output"), list)


def _is_question_answer(row: dict[str, Any]) -> bool:
    """These two keys alone: with others beside them a question has choices, or a passage, that must not be lost."""
    return row.keys() == {"question", "answer"}


def _is_prompt(row: dict[str, Any]) -> bool:
    return any(row.get(key) is not None for key in ("prompt", "instruction", "user_prompt"))


_PAIR = ("prompt", "chosen", "rejected")
_ANSWERS = ("question", "response_j", "response_k")
_COMPLETION = ("prompt", "completion")

LAYOUTS = (
    Layout("labelled", "labelled answers", "a dialogue with label true or false", _is_labelled, _labelled),
    Layout("messages-pair", "preferences", "chosen and rejected dialogues", _is_dialogue_pair, _dialogue_pair),
    Layout(
        "sharegpt-pair", "preferences", "conversations, chosen, rejected", _is_conversation_pair, _conversation_pair
    ),
    Layout("rm-static", "preferences", "prompt, response, chosen, rejected", _has("response", *_PAIR), _rm_static),
    Layout("prompt-pair", "preferences", "prompt, chosen, rejected", _has(*_PAIR), _pair),
    Layout("hh-rlhf", "preferences", "chosen and rejected transcripts", _is_pair_of_texts, _hh),
    Layout("graded", "preferences", "prompt, responses, scores", _has("prompt", "responses", "scores"), _graded),
    Layout("graded-response", "preferences", "prompt, response, score (or helpfulness)", _is_graded_one, _graded_one),
    Layout("answers-pair", "preferences", "question, response_j, response_k", _has(*_ANSWERS), _answers_pair),
    Layout("sharegpt", "conversations", "conversations", _has("conversations"), _conversation),
    Layout("messages", "conversations", "messages", _has("messages"), _conversation),
    Layout("alpaca-ranked", "preferences", "instruction, output as a list", _is_alpaca_ranked, _alpaca_ranked),
    Layout("alpaca", "conversations", "instruction, input, output", _has("instruction", "output"), _alpaca),
    Layout("prompt-completion", "conversations", "prompt, completion", _has(*_COMPLETION), _prompt_completion),
    Layout("question-answer", "conversations", "question, answer, no more", _is_question_answer, _question_answer),
    Layout("prompt", "prompts", "prompt, or instruction", _is_prompt, _only_prompt),
)
"""Tried in this order: the layout with the most telling keys first."""
