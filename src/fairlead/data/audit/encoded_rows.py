"""Records as a model would be trained on them, each beside what it would read before it answers. No torch here."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Protocol

from fairlead.data.audit.findings import Shown, excerpt
from fairlead.data.chat_template import Encoded
from fairlead.errors import UserError
from fairlead.records import Conversation, Document, Judgement, Message, Preference, Prompt, Record


class Encoder(Protocol):
    """What the checks ask of a chat template; `ChatTemplate` is one, and tests break one."""

    @property
    def end_token_ids(self) -> tuple[int, ...]:
        """Tokens that end an answer."""
        ...

    def encode(self, messages: Sequence[Message], max_length: int | None = None) -> Encoded:
        """A whole conversation."""
        ...

    def encode_prompt(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """A prompt, ready to be answered."""
        ...

    def encode_response(
        self, prompt: Sequence[Message], response: str, *, end_token: bool
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """A prompt and one response to it."""
        ...

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = False) -> str:
        """The text that is encoded."""
        ...

    def decode(self, ids: Sequence[int], *, special: bool = False) -> str:
        """Ids as text."""
        ...


@dataclass(frozen=True, slots=True)
class Prefix:
    """What the model reads before it says message `answer`."""

    answer: int
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class AuditedRow:
    """One sequence, whole: no length is cut yet.

    `source` is `file:line`, `record` the place of its record among those encoded (a line may hold several), `response`
    its place among the record's own.
    """

    source: str
    messages: tuple[Message, ...]
    encoded: Encoded
    answers: tuple[int, ...] = ()  # the messages that are to be learned
    prefixes: tuple[Prefix, ...] = ()  # of the first and of the last of them
    response: int = 0
    record: int = 0
    first_learned: int = 0  # the first token that may be trained: answers in a preference's prompt are not learned

    @property
    def title(self) -> str:
        """Where it stands."""
        return f"{self.source} response {self.response}" if self.response else self.source

    @property
    def trained_runs(self) -> list[tuple[int, int]]:
        """The stretches of trained tokens: first, and one past the last."""
        return _runs(self.encoded.trained)

    def is_learned(self, place: int) -> bool:
        """Whether this token belongs to an answer that is to be learned."""
        return self.encoded.roles[place] == "assistant" and place >= self.first_learned


def encode_rows(records: Sequence[Record], encoder: Encoder) -> tuple[list[AuditedRow], list[Shown]]:
    """Every sequence of the records, and the records that the template refuses, each with its reason."""
    rows: list[AuditedRow] = []
    refused: list[Shown] = []
    for place, record in enumerate(records):
        try:
            rows += [replace(row, record=place) for row in _rows(record, encoder)]
        except UserError as error:
            got = f"; got {excerpt(error.got)!r}" if error.got else ""
            refused.append(Shown(record.source, f"{error.what}{got}", "a text with every message in it"))
    return rows, refused


def encode_documents(records: Sequence[Document], tokenizer: Any) -> list[AuditedRow]:
    """Documents have no template: all of their tokens are trained."""
    rows: list[AuditedRow] = []
    for place, record in enumerate(records):
        ids = tuple(tokenizer(record.text, add_special_tokens=False, verbose=False)["input_ids"])
        encoded = Encoded(ids, (True,) * len(ids), ("assistant",) * len(ids))
        rows.append(AuditedRow(record.source, (), encoded, record=place))
    return rows


def _rows(record: Record, encoder: Encoder) -> Iterator[AuditedRow]:
    match record:
        case Conversation():
            yield _conversation(record, encoder)
        case Preference() | Judgement():
            for number, response in enumerate(record.responses, start=1):
                yield _response(record, number, response, encoder)
        case Prompt():
            yield AuditedRow(record.source, record.messages, _prompt(record.messages, encoder))
        case Document():  # see `encode_documents`
            pass


def _conversation(record: Conversation, encoder: Encoder) -> AuditedRow:
    messages = record.messages
    answers = tuple(place for place, message in enumerate(messages) if message.role == "assistant")
    ends = dict.fromkeys((*answers[:1], *answers[-1:]))  # of all of them it would take quadratic time
    prefixes = tuple(Prefix(place, encoder.encode_prompt(messages[:place])) for place in ends)
    return AuditedRow(record.source, messages, encoder.encode(messages), answers, prefixes)


def _response(record: Preference | Judgement, number: int, response: str, encoder: Encoder) -> AuditedRow:
    messages = (*record.prompt, Message("assistant", response))
    before, answer = encoder.encode_response(record.prompt, response, end_token=True)
    roles = encoder.encode(messages).roles[: len(before) + len(answer)]
    encoded = Encoded(before + answer, (False,) * len(before) + (True,) * len(answer), roles)
    place = len(record.prompt)
    prefix = Prefix(place, encoder.encode_prompt(record.prompt))
    return AuditedRow(record.source, messages, encoded, (place,), (prefix,), number, first_learned=len(before))


def _prompt(messages: tuple[Message, ...], encoder: Encoder) -> Encoded:
    ids = encoder.encode_prompt(messages)
    roles = encoder.encode([*messages, Message("assistant", "x")]).roles[: len(ids)]
    return Encoded(ids, (False,) * len(ids), roles)


def _runs(flags: Sequence[bool]) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    at = 0
    for flag, group in groupby(flags):
        length = sum(1 for _ in group)
        if flag:
            runs.append((at, at + length))
        at += length
    return runs
