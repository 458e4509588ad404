"""What the server asks of a model. Whatever answers this way can be served: the engine, or an echo."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from fairlead.config.common import SamplingConfig
from fairlead.generate.requests import Penalties
from fairlead.records import Message


@dataclass(frozen=True, slots=True)
class Drawn:
    """One token of a response. Log-probabilities are nats; `top` holds the likeliest tokens, best first."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()
    ends: bool = False  # an end token: it is no part of the text


@dataclass(frozen=True, slots=True)
class Ask:
    """A prompt and how to answer it."""

    prompt: tuple[int, ...]
    sampling: SamplingConfig
    seed: int
    num_top: int = 0
    penalties: Penalties = field(default_factory=Penalties)


class Model(Protocol):
    """A model that answers many at once."""

    name: str
    context_tokens: int

    def encode_chat(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """The tokens of a dialogue, ready to be answered."""
        ...

    def encode_text(self, text: str) -> tuple[int, ...]:
        """The tokens of a text, to go on with."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens, without special ones."""
        ...

    def token_bytes(self, token: int) -> bytes:
        """The bytes of one token, which may be a part of a character; none of a special one."""
        ...

    def generate(self, ask: Ask) -> AsyncGenerator[Drawn]:
        """The tokens of the response as they are drawn; closing the iterator ends the work for it."""
        ...


class Scorer(Protocol):
    """A reward model."""

    name: str
    context_tokens: int

    def encode(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """The tokens of a dialogue that ends with an answer."""
        ...

    async def score(self, rows: Sequence[tuple[int, ...]]) -> list[float]:
        """One number for each row of tokens, higher is better."""
        ...


@dataclass
class Echo:
    """Says the last words of the prompt again, a byte a token: for tests of the server alone."""

    name: str = "echo"
    context_tokens: int = 4096
    seconds_per_token: float = 0.0
    running: int = 0

    END = 256

    def encode_chat(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """The bytes of the last message."""
        return self.encode_text(messages[-1].content)

    def encode_text(self, text: str) -> tuple[int, ...]:
        """The bytes of the text."""
        return tuple(text.encode())

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of these bytes; a character that is not whole is U+FFFD."""
        return bytes(token for token in tokens if token < self.END).decode(errors="replace")

    def token_bytes(self, token: int) -> bytes:
        """The byte itself."""
        return bytes([token]) if token < self.END else b""

    async def generate(self, ask: Ask) -> AsyncGenerator[Drawn]:
        """The prompt's bytes, one after the other."""
        self.running += 1
        try:
            for token in (*ask.prompt, self.END)[: ask.sampling.max_new_tokens]:
                await asyncio.sleep(self.seconds_per_token)
                top = ((token, -0.1), *((other, -3.0) for other in range(ask.num_top - 1)))[: ask.num_top]
                yield Drawn(token, -0.1, top, ends=token == self.END)
        finally:
            self.running -= 1
