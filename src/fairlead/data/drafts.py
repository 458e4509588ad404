"""A row that was understood, and the checks that make a record of it. No torch here."""

from dataclasses import dataclass

from fairlead.records import Conversation, Document, Judgement, Message, Preference, Prompt


class BadRowError(ValueError):
    """A row that cannot be used; the text is the reason."""


class LeftOutError(BadRowError):
    """A row with nothing wrong that holds no record of the kind that is read: it is counted, not rejected."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A row before its checks: a dialogue, and the responses to it if the layout has them, best first.

    Where the layout has `grades`, one per response, they say which is best; where it has `labels`, one per response,
    which are desirable. `desirable` is the label of the dialogue's last answer, if the layout has one. `text` is the
    text of a document, which has nothing else.
    """

    messages: tuple[Message, ...]
    responses: tuple[str, ...] = ()
    grades: tuple[float, ...] = ()
    labels: tuple[bool, ...] = ()
    desirable: bool | None = None
    text: str = ""
    may_be_short: bool = False  # too few responses, or all alike, are what such files are full of: no mistake


def to_conversation(draft: Draft, source: str) -> Conversation:
    """A dialogue that ends with an answer."""
    _check_order(draft.messages)
    if draft.messages[-1].role != "assistant":
        raise BadRowError("the dialogue ends with a user turn: there is no answer to learn")
    return Conversation(draft.messages, source)


def to_preference(draft: Draft, source: str) -> Preference:
    """A prompt with two or more different responses, best first; with grades one is enough."""
    if draft.may_be_short:
        _check_worth(draft)
    prompt = to_prompt(Draft(draft.messages), source).messages
    if len(draft.responses) < (1 if draft.grades else 2):
        raise BadRowError(f"a preference has at least two responses, this one {len(draft.responses)}")
    for response in draft.responses:
        _check_text(response, "a response")
    if len({response.strip() for response in draft.responses}) < len(draft.responses):
        raise BadRowError("chosen and rejected are the same")
    if not draft.grades:
        return Preference(prompt, draft.responses, source)
    graded = sorted(zip(draft.grades, draft.responses, strict=True), key=lambda pair: -pair[0])
    grades, responses = zip(*graded, strict=True)
    return Preference(prompt, responses, source, grades)


def _check_worth(draft: Draft) -> None:
    if len(draft.responses) < 2:
        raise LeftOutError("a question with fewer than two answers")
    if len(set(draft.grades)) < 2:
        raise LeftOutError("a question whose answers all have the same score")


def to_judgement(draft: Draft, source: str) -> Judgement:
    """An answer with its label; of ranked responses the best is desirable, the worst is not."""
    if draft.labels:
        prompt = to_prompt(Draft(draft.messages), source).messages
        for response in draft.responses:
            _check_text(response, "a response")
        return Judgement(prompt, draft.responses, draft.labels, source)
    if draft.responses:
        pair = to_preference(draft, source)
        if pair.grades and pair.grades[0] == pair.grades[-1]:
            raise BadRowError("no response is scored above another")
        return Judgement(pair.prompt, (pair.chosen, pair.rejected), (True, False), source)
    if draft.desirable is None:
        raise BadRowError("the label is missing: true for a desirable answer, false for an undesirable one")
    dialogue = to_conversation(draft, source)
    return Judgement(dialogue.prompt, (dialogue.messages[-1].content,), (draft.desirable,), source)


def to_prompt(draft: Draft, source: str) -> Prompt:
    """A dialogue that waits for an answer; a last answer that is there is set aside."""
    messages, answer = draft.messages, ""
    if messages and messages[-1].role == "assistant":
        messages, answer = messages[:-1], messages[-1].content
    _check_order(messages)
    if messages[-1].role != "user":
        raise BadRowError("there is no user turn to answer")
    return Prompt(messages, source, answer)


def to_document(draft: Draft, source: str) -> Document:
    """A text that is not empty."""
    _check_text(draft.text, "a document")
    return Document(draft.text, source)


def _check_order(messages: tuple[Message, ...]) -> None:
    turns = messages[1:] if messages and messages[0].role == "system" else messages
    if not turns:
        raise BadRowError("there is no user turn")
    for index, message in enumerate(turns):
        expected = "assistant" if index % 2 else "user"
        if message.role != expected:
            raise BadRowError(f"roles are out of order: turn {index + 1} is {message.role}, expected {expected}")
        _check_text(message.content, f"{'an' if expected == 'assistant' else 'a'} {expected} turn")
    if "\0" in messages[0].content:
        raise BadRowError("the system turn holds a NUL character")


def _check_text(text: str, name: str) -> None:
    if not text.strip():
        raise BadRowError(f"{name} is empty")
    if "\0" in text:
        raise BadRowError(f"{name} holds a NUL character")
