"""The texts of a record, by what they are, whatever kind it is. No torch here."""

from collections.abc import Callable
from dataclasses import replace

from fairlead.records import Conversation, Document, Judgement, Message, Preference, Prompt, Record


def prompt_text(record: Record) -> str:
    """What a model reads before it answers: all turns but the last answer, a line each; of a document nothing."""
    match record:
        case Document():
            return ""
        case Prompt():
            messages = record.messages
        case _:
            messages = record.prompt
    return "\n".join(message.content for message in messages)


def answer_texts(record: Record) -> tuple[str, ...]:
    """What a model learns to say: every assistant turn of a conversation, all responses, the text of a document."""
    match record:
        case Document():
            return (record.text,)
        case Conversation():
            return tuple(message.content for message in record.messages if message.role == "assistant")
        case Preference() | Judgement():
            return record.responses
        case Prompt():
            return ()


def whole_text(record: Record) -> str:
    """All of it, a line per text."""
    if isinstance(record, Conversation):
        return "\n".join(message.content for message in record.messages)
    return "\n".join(text for text in (prompt_text(record), *answer_texts(record)) if text)


def map_texts(record: Record, change: Callable[[str], str]) -> Record:
    """The record with every text changed; the answer that a prompt keeps for its verifier too."""

    def changed(messages: tuple[Message, ...]) -> tuple[Message, ...]:
        return tuple(replace(message, content=change(message.content)) for message in messages)

    match record:
        case Document():
            return replace(record, text=change(record.text))
        case Conversation():
            return replace(record, messages=changed(record.messages))
        case Prompt():
            return replace(record, messages=changed(record.messages), answer=change(record.answer))
        case Preference() | Judgement():
            return replace(record, prompt=changed(record.prompt), responses=tuple(map(change, record.responses)))
