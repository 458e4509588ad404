"""Which texts of a record a step looks at, prose without code, and changes that make no difference the second time."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

from fairlead.data.filters.outcome import Dropped, Kept
from fairlead.data.views import answer_texts, map_texts, prompt_text
from fairlead.records import Conversation, Document, Judgement, Message, Preference, Prompt, Record

FENCE = "```"
_CODE = re.compile(r"(```.*?(?:```|\Z)|`[^`\n]+`)", re.DOTALL)
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_UNSPACED += "\U00020000-\U000323af"  # Thai, Lao, Myanmar, Khmer, kana, Han
_WORD = re.compile(f"[{_UNSPACED}]|[^\\W_{_UNSPACED}]+")
_MAX_ROUNDS = 8


def taught_texts(record: Record) -> tuple[str, ...]:
    """What a model learns to say: of ranked responses the best, of judged ones the desirable. A prompt has none."""
    match record:
        case Preference():
            return (record.chosen,)
        case Judgement():
            pairs = zip(record.responses, record.desirable, strict=True)
            return tuple(response for response, desirable in pairs if desirable)
        case _:
            return answer_texts(record)


def main_texts(record: Record) -> tuple[str, ...]:
    """What a model learns to say; of a prompt, the prompt."""
    return (prompt_text(record),) if isinstance(record, Prompt) else taught_texts(record)


def map_answers(record: Record, change: Callable[[str], str]) -> Record:
    """The record with every answer changed, and nothing else."""

    def changed(message: Message) -> Message:
        return replace(message, content=change(message.content)) if message.role == "assistant" else message

    match record:
        case Document():
            return replace(record, text=change(record.text))
        case Conversation():
            return replace(record, messages=tuple(map(changed, record.messages)))
        case Preference() | Judgement():
            return replace(record, responses=tuple(map(change, record.responses)))
        case Prompt():
            return record


def prose(text: str) -> str:
    """The text without its code."""
    return _CODE.sub(" ", text)


def outside_code(text: str, change: Callable[[str], str]) -> str:
    """The text with everything changed but its code."""
    pieces = _CODE.split(text)
    pieces[::2] = [change(piece) if piece else piece for piece in pieces[::2]]
    return "".join(pieces)


def words_of(text: str) -> list[str]:
    """Runs of letters and digits, and single characters of scripts that are written without spaces."""
    return _WORD.findall(text)


def settled(record: Record, changes: Mapping[str, Callable[[str], str]]) -> Kept | Dropped:
    """The record with all changes made to all its texts, again and again until they make no difference.

    A record that does not settle stays as it is. The names of the changes that did something are told.
    """
    now, made = record, dict[str, None]()
    for _ in range(_MAX_ROUNDS):
        before = now
        for name, change in changes.items():
            following = map_texts(now, change)
            if following != now:
                now, made = following, made | {name: None}
        if now == before:
            return outcome_of(record, now, ", ".join(made))
    return Kept(record)


def outcome_of(before: Record, after: Record, changed: str) -> Kept | Dropped:
    """The record after a change, unless nothing is left of one of its texts, or of the difference of two responses."""
    if after == before:
        return Kept(before)
    if _num_blank(after) > _num_blank(before):
        return Dropped(f"nothing else than this in a text: {changed}")
    if isinstance(after, Preference) and _num_different(after) < _num_different(before):
        return Dropped(f"no other difference between responses: {changed}")
    return Kept(after, changed)


def _num_blank(record: Record) -> int:
    messages = record.messages if isinstance(record, Conversation | Prompt) else ()
    return sum(not text.strip() for text in (*(message.content for message in messages), *answer_texts(record)))


def _num_different(record: Record) -> int:
    return len(set(map(str.strip, answer_texts(record))))
