"""What is asked of the engine, and what came of it so far."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from fairlead.config.common import SamplingConfig


@dataclass(frozen=True)
class Response:
    """What the model said. `tokens` include the end token; `logprobs` are nats at the sampling temperature."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    finished: bool  # ended by itself: an end token or a stop string, not the length limit


@dataclass(frozen=True)
class Penalties:
    """What servers offer against repetition, each off at 0. They change what is drawn, never the log-probabilities."""

    presence: float = 0.0  # taken off the logits of tokens that the response holds
    frequency: float = 0.0  # likewise, for each time it holds them
    no_repeat_ngram: int = 0  # no run of so many tokens twice in prompt and response


@dataclass
class Request:
    """One prompt and its response so far. `uniforms` holds a number in [0, 1) for each token that may be drawn."""

    index: int
    prompt: tuple[int, ...]
    sampling: SamplingConfig
    uniforms: list[float]
    limit: int
    penalties: Penalties = Penalties()
    num_top: int = 0  # likeliest tokens to be told of at each place
    on_token: Callable[["Request"], None] | None = None
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    top: list[tuple[tuple[int, float], ...]] = field(default_factory=list)
    finished: bool = False
    cancelled: bool = False

    @property
    def running(self) -> bool:
        """Whether another token is to be drawn."""
        return not self.finished and not self.cancelled and len(self.tokens) < self.limit

    @property
    def response(self) -> Response:
        """What was said so far."""
        return Response(tuple(self.tokens), tuple(self.logprobs), self.finished)


def uniforms_of(seed: int, num: int) -> list[float]:
    """A request's whole randomness, drawn at once from its own generator."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(num, generator=generator, dtype=torch.float64).tolist()


def repeating(tokens: Sequence[int], size: int) -> list[int]:
    """The tokens that would end a run of `size` tokens which stands in `tokens` already."""
    if size == 0 or len(tokens) < size:
        return []
    last = tuple(tokens[len(tokens) - size + 1 :])
    runs = (tuple(tokens[at : at + size]) for at in range(len(tokens) - size + 1))
    return sorted({run[-1] for run in runs if run[:-1] == last})
