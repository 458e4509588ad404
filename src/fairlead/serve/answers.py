"""From a request to its choices, and from choices to OpenAI's objects, whole or in pieces."""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from fairlead.config.common import SamplingConfig
from fairlead.generate.requests import Penalties
from fairlead.generate.text import TextStream
from fairlead.serve.errors import HttpError, too_long
from fairlead.serve.models import Ask, Drawn, Model
from fairlead.serve.schema import MAX_CHOICES, ChatRequest, CompletionRequest


@dataclass
class Usage:
    """Tokens that were read and drawn."""

    prompt: int
    drawn: int = 0

    def json(self) -> dict[str, int]:
        """As OpenAI names them."""
        return {
            "prompt_tokens": self.prompt, "completion_tokens": self.drawn, "total_tokens": self.prompt + self.drawn
        }  # fmt: skip


@dataclass
class Piece:
    """What is new in one choice."""

    choice: int
    text: str
    tokens: list[Drawn] = field(default_factory=list)
    finish: str | None = None


@dataclass
class Job:
    """One request, checked against its model."""

    model: Model
    asks: list[Ask]
    stops: tuple[str, ...]
    usage: Usage
    id: str
    created: int = field(default_factory=lambda: int(time.time()))


def job_of(
    request: ChatRequest | CompletionRequest,
    model: Model,
    prompts: Sequence[tuple[int, ...]],
    *,
    most: int | None = None,
) -> Job:
    """What to draw: `n` choices for each prompt, those of the first before those of the second.

    most: tokens of a choice where the request does not say how many; without it as many as the context holds. Raises
    HttpError where a prompt and its answer leave the model's context, and for more choices than there may be.
    """
    num_choices = request.n or 1
    if num_choices * len(prompts) > MAX_CHOICES:
        what = f"{len(prompts)} prompts with n={num_choices} are more than {MAX_CHOICES} choices"
        raise HttpError(400, what, param="n", code="invalid_value")
    wanted = request.max_tokens
    if isinstance(request, ChatRequest):
        wanted = request.max_completion_tokens or wanted
        num_top = max(request.top_logprobs or 0, 1) if request.logprobs else 0
    else:
        wanted, num_top = wanted or 16, max(request.logprobs or 0, 1) if request.logprobs is not None else 0
    for prompt in prompts:
        _check_room(prompt, wanted or 1, model, "messages" if isinstance(request, ChatRequest) else "prompt")
    penalties = Penalties(
        _or(request.presence_penalty, 0.0), _or(request.frequency_penalty, 0.0), _or(request.no_repeat_ngram_size, 0)
    )
    seed = secrets.randbelow(2**31) if request.seed is None else request.seed
    asks = []
    for prompt in prompts:
        room = model.context_tokens - len(prompt)
        sampling = SamplingConfig(
            max_new_tokens=wanted or min(most or room, room), temperature=_or(request.temperature, 1.0),
            top_p=_or(request.top_p, 1.0), top_k=_or(request.top_k, 0), min_p=_or(request.min_p, 0.0),
            repetition_penalty=_or(request.repetition_penalty, 1.0),
        )  # fmt: skip
        asks += [Ask(prompt, sampling, (seed + choice) % 2**63, num_top, penalties) for choice in range(num_choices)]
    kind = "chatcmpl" if isinstance(request, ChatRequest) else "cmpl"
    return Job(model, asks, request.stops, Usage(sum(map(len, prompts))), f"{kind}-{secrets.token_hex(12)}")


def _check_room(prompt: tuple[int, ...], num_new: int, model: Model, param: str) -> None:
    if len(prompt) + num_new > model.context_tokens:
        raise too_long(len(prompt), num_new, model.context_tokens, param)
    if not prompt:
        raise HttpError(400, "the prompt has no tokens", param=param, code="invalid_value")


def _or(given: Any, otherwise: Any) -> Any:
    return otherwise if given is None else given


async def pieces(job: Job) -> AsyncGenerator[Piece]:
    """All choices' pieces in the order in which they come; closing the iterator ends the work for all of them."""
    queue: asyncio.Queue[Piece | BaseException] = asyncio.Queue()
    tasks = [asyncio.create_task(_choice(job, number, queue)) for number in range(len(job.asks))]
    try:
        left = len(tasks)
        while left:
            piece = await queue.get()
            if isinstance(piece, BaseException):
                raise piece
            left -= piece.finish is not None
            yield piece
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _choice(job: Job, number: int, queue: "asyncio.Queue[Piece | BaseException]") -> None:
    ask, text = job.asks[number], TextStream(job.model.decode, job.stops)
    held: list[Drawn] = []  # tokens whose text has not been shown
    try:
        finish = "length"
        async with aclosing(job.model.generate(ask)) as tokens:
            async for drawn in tokens:
                job.usage.drawn += 1
                if drawn.ends:
                    finish = "stop"
                    break
                held.append(drawn)
                new = text.add(drawn.token)
                if text.ended:
                    finish = "stop"
                    await queue.put(Piece(number, new, held))
                    held = []
                    break
                if new:
                    await queue.put(Piece(number, new, held))
                    held = []
        await queue.put(Piece(number, text.rest(), held, finish))
    except Exception as error:  # noqa: BLE001 - told to whoever waits for this choice
        await queue.put(error)


def chat_logprobs(model: Model, tokens: Sequence[Drawn], num_top: int) -> dict[str, Any]:
    """Of a chat's tokens: text, bytes and nats of each, and of the likeliest in its place."""

    def entry(token: int, logprob: float) -> dict[str, Any]:
        return {"token": model.decode([token]), "logprob": logprob, "bytes": list(model.token_bytes(token))}

    content = [
        entry(one.token, one.logprob) | {"top_logprobs": [entry(*best) for best in one.top[:num_top]]}
        for one in tokens
    ]  # fmt: skip
    return {"content": content, "refusal": None}


def completion_logprobs(model: Model, tokens: Sequence[Drawn], num_top: int, offset: int) -> dict[str, Any]:
    """As the older interface has them; `offset` is where the text of these tokens begins."""
    texts = [model.decode([one.token]) for one in tokens]
    offsets = [offset + sum(map(len, texts[:place])) for place in range(len(texts))]
    top = [{model.decode([token]): logprob for token, logprob in one.top[:num_top]} for one in tokens]
    return {
        "tokens": texts, "token_logprobs": [one.logprob for one in tokens], "top_logprobs": top if num_top else None,
        "text_offset": offsets,
    }  # fmt: skip
