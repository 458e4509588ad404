"""What the pages ask of the models that are served."""

import secrets
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

    async def talk(self, asked: ChatRequest, held: AsyncExitStack, *, most: int) -> AsyncGenerator[Piece]:
        """An answer in pieces, of at most `most` tokens where the request does not say how many.

        `held` keeps what is to be let go after them. Raises HttpError before the first.
        """
        ...


@dataclass
class Said:
    """An answer so far."""

    text: str = ""
    finish: str = "stopped"

    def add(self, piece: Piece) -> str:
        """What is new."""
        text = piece.text.replace("\0", "\ufffd")  # which PostgreSQL would not keep
        self.text += text
        self.finish = piece.finish or self.finish
        return text


def asked_of(model: str, dialogue: Sequence[Message], sampling: Sampling) -> ChatRequest:
    """The request of a page as one of OpenAI's."""
    said = [ChatMessage(message.role, message.content) for message in dialogue]
    return ChatRequest(model=model, messages=said, **structs.asdict(sampling))


def seeded(sampling: Sampling) -> Sampling:
    """With a seed, so that an answer can be drawn again."""
    return sampling if sampling.seed is not None else structs.replace(sampling, seed=secrets.randbelow(2**31))


async def whole(talker: Talker, asked: ChatRequest) -> Said:
    """An answer to its end."""
    said = Said()
    async with AsyncExitStack() as held, aclosing(await talker.talk(asked, held, most=MOST_TOKENS)) as pieces:
        async for piece in pieces:
            said.add(piece)
    return said
