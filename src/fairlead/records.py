"""What a row of data means, whatever file it came from. No torch here."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a dialogue."""

    role: Role
    content: str


def plain(messages: Iterable[Message]) -> list[dict[str, str]]:
    """A dialogue as JSON and templates hold it."""
    return [{"role": message.role, "content": message.content} for message in messages]


@dataclass(frozen=True, slots=True)
class Conversation:
    """A dialogue to imitate: every assistant turn is supervised. `source` is `file:line`."""

    messages: tuple[Message, ...]
    source: str = ""

    @property
    def prompt(self) -> tuple[Message, ...]:
        """All turns before the last assistant turn."""
        return self.messages[:-1] if self.messages and self.messages[-1].role == "assistant" else self.messages


@dataclass(frozen=True, slots=True)
class Prompt:
    """A dialogue that waits for an assistant turn. `source` is `file:line`.

    `answer` is the assistant turn that the row holds, if any: no model sees it, a verifier compares with it.
    """

    messages: tuple[Message, ...]
    source: str = ""
    answer: str = ""


@dataclass(frozen=True, slots=True)
class Preference:
    """2..K responses to one prompt, best first. `source` is `file:line`.

    `grades`, where people gave them, holds one number per response, higher is better; then one response is enough.
    """

    prompt: tuple[Message, ...]
    responses: tuple[str, ...]
    source: str = ""
    grades: tuple[float, ...] = ()

    @property
    def chosen(self) -> str:
        """The best response."""
        return self.responses[0]

    @property
    def rejected(self) -> str:
        """The worst response."""
        return self.responses[-1]


@dataclass(frozen=True, slots=True)
class Judgement:
    """Responses to one prompt, each called desirable or not by itself. `source` is `file:line`."""

    prompt: tuple[Message, ...]
    responses: tuple[str, ...]
    desirable: tuple[bool, ...]
    source: str = ""


@dataclass(frozen=True, slots=True)
class Document:
    """Text to go on with, for pre-training. `source` is `file:line`."""

    text: str
    source: str = ""


@dataclass(frozen=True, slots=True)
class Rejection:
    """A row that could not be used: where it stands and why."""

    path: str
    line: int
    reason: str


Record = Conversation | Prompt | Preference | Judgement | Document
