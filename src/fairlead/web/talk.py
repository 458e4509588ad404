"""What the pages ask of the models that are served."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import Protocol

from msgspec import structs

from fairlead.records import Message
from fairlead.serve.schema import ChatMessage, ChatRequest
from fairlead.web.schema import MOST_TOKENS, Sampling


class Piece(Protocol):
    """What is new of an answer; the last one says why it ended."""

    @property
    def text(self) -> str: ...  # noqa: D102
    @property
    def finish(self) -> str | None: ...  # noqa: D102


class Talker(Protocol):
    """What answers dialogues: serve.app.Server."""

    async def talk(self, asked: ChatRequest, held: AsyncExitStack) -> AsyncGenerator[Piece]:
        """An answer in pieces; `held` keeps what is to be let go after them. Raises HttpError before the first."""
        ...


@dataclass
class Said:
    """An answer so far."""

    text: str = ""
    finish: str = "stopped"

    def add(self, piece: Piece) -> str:
        """What is new."""
        self.text += piece.text
        self.finish = piece.finish or self.finish
        return piece.text


def asked_of(model: str, dialogue: Sequence[Message], sampling: Sampling) -> ChatRequest:
    """The request of a page as one of OpenAI's."""
    said = [ChatMessage(message.role, message.content) for message in dialogue]
    options = structs.asdict(sampling)
    return ChatRequest(model=model, messages=said, **options | {"max_tokens": sampling.max_tokens or MOST_TOKENS})


async def whole(talker: Talker, asked: ChatRequest) -> Said:
    """An answer to its end."""
    said = Said()
    async with AsyncExitStack() as held, aclosing(await talker.talk(asked, held)) as pieces:
        async for piece in pieces:
            said.add(piece)
    return said
