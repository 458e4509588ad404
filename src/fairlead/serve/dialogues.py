"""Messages of requests as the templates read them."""

from collections.abc import Sequence

from fairlead.records import Message
from fairlead.serve.errors import HttpError
from fairlead.serve.schema import MAX_SCORED, ChatMessage, ScoreRequest


def messages_of(given: Sequence[ChatMessage]) -> list[Message]:
    """One dialogue."""
    return [Message("system" if one.role == "developer" else one.role, one.text) for one in given]


def dialogues_of(asked: ScoreRequest) -> list[list[Message]]:
    """The dialogues to be scored. Raises HttpError where there are too many, or one does not end with an answer."""
    lists = [one for one in asked.messages if isinstance(one, list)]
    single = [one for one in asked.messages if isinstance(one, ChatMessage)]
    if lists and single:
        raise _refused("one dialogue or a list of dialogues, not both in one list", "messages")
    if len(lists) > MAX_SCORED:
        raise _refused(f"{len(lists)} dialogues are more than {MAX_SCORED}; send them in several requests", "messages")
    for number, dialogue in enumerate(lists or [single]):
        if dialogue[-1].role != "assistant":
            what = f"a dialogue to be scored ends with an assistant's turn; this one ends with {dialogue[-1].role!r}"
            raise _refused(what, f"messages[{number}]" if lists else "messages")
    return [messages_of(dialogue) for dialogue in lists or [single]]


def _refused(what: str, param: str) -> HttpError:
    return HttpError(400, what, param=param, code="invalid_value")
