"""Records as the rows that fairlead writes and reads again: one JSON object each, with where it came from. No torch."""

from typing import Any

from fairlead.records import Conversation, Document, Judgement, Message, Preference, Prompt, Record


def to_row(record: Record) -> dict[str, Any]:
    """One object that the readers take back for the same record."""
    row: dict[str, Any]
    match record:
        case Document():
            row = {"text": record.text}
        case Conversation():
            row = {"messages": _turns(record.messages)}
        case Prompt():
            row = {"prompt": _turns(record.messages)} | ({"answer": record.answer} if record.answer else {})
        case Preference(grades=()):
            row = {"prompt": _turns(record.prompt), "ranked": list(record.responses)}
        case Preference():
            row = {"prompt": _turns(record.prompt), "responses": list(record.responses), "scores": list(record.grades)}
        case Judgement():
            row = {
                "prompt": _turns(record.prompt), "responses": list(record.responses),
                "desirable": list(record.desirable),
            }  # fmt: skip
    return row | {"source": record.source}


def from_row(row: dict[str, Any]) -> Record:
    """The inverse of `to_row`."""
    source = row["source"]
    if "text" in row:
        return Document(row["text"], source)
    if "messages" in row:
        return Conversation(_messages(row["messages"]), source)
    prompt = _messages(row["prompt"])
    if "ranked" in row:
        return Preference(prompt, tuple(row["ranked"]), source)
    if "scores" in row:
        return Preference(prompt, tuple(row["responses"]), source, tuple(row["scores"]))
    if "desirable" in row:
        return Judgement(prompt, tuple(row["responses"]), tuple(row["desirable"]), source)
    return Prompt(prompt, source, row.get("answer", ""))


def _turns(messages: tuple[Message, ...]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def _messages(turns: list[dict[str, Any]]) -> tuple[Message, ...]:
    return tuple(Message(turn["role"], turn["content"]) for turn in turns)
