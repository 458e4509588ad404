"""The routes: OpenAI's chat and text completions over the models at hand, health, and figures."""

import asyncio
import logging
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fairlead.config.common import SamplingConfig
from fairlead.errors import UserError
from fairlead.records import Message
from fairlead.serve.answers import Job, Piece, Usage, chat_logprobs, completion_logprobs, job_of, pieces
from fairlead.serve.dialogues import dialogues_of, messages_of
from fairlead.serve.errors import HttpError, no_model, not_a_policy, not_a_reward_model, too_long
from fairlead.serve.gate import Clock, Gate, Metrics
from fairlead.serve.http import Events, Handler, as_json, event, read_body, told, unless_gone
from fairlead.serve.models import Ask, Model, Scorer
from fairlead.serve.openapi import document
from fairlead.serve.pages import Pages
from fairlead.serve.schema import ChatRequest, CompletionRequest, ScoreRequest

LOG = logging.getLogger("fairlead.serve")
HEALTH_SECONDS = 30.0
HEALTH_REST_SECONDS = 1.0  # between two looks, however many ask
T = TypeVar("T")


class Server:
    """The models that are served, and the routes over them."""

    def __init__(
        self, models: Mapping[str, Model], scorers: Mapping[str, Scorer] | None = None,
        *, max_running: int = 64, max_waiting: int = 1024,
    ) -> None:  # fmt: skip
        self.models, self.scorers = dict(models), dict(scorers or {})
        self.gate = Gate(max_running, max_waiting)
        self.metrics = Metrics(self.gate)
        self._document: dict[str, Any] = {}
        self._looking, self._looked = asyncio.Lock(), -math.inf

    def app(self, pages: Pages | None = None) -> Starlette:
        """The application, with pages beside it; whoever runs it puts the guards before it."""
        self._document = document(*(pages.described() if pages else ({}, {})))
        routes = [
            Route("/v1/chat/completions", self._told(self.chat), methods=["POST"]),
            Route("/v1/completions", self._told(self.complete), methods=["POST"]),
            Route("/v1/score", self._told(self.score), methods=["POST"]),
            Route("/v1/models", self._told(self.list_models), methods=["GET"]),
            Route("/v1/models/{name:path}", self._told(self.one_model), methods=["GET"]),
            Route("/health", self._told(self.health), methods=["GET"]),
            Route("/metrics", self._told(self.figures), methods=["GET"]),
            Route("/openapi.json", self._told(self.openapi), methods=["GET"]),
        ]
        handlers: dict[Any, Any] = {404: _nothing_here, 405: _nothing_here}
        return Starlette(routes=[*routes, *(pages.routes() if pages else ())], exception_handlers=handlers)

    # --- routes

    async def chat(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        asked = await read_body(request, ChatRequest)
        return await self._answer(request, asked, await self._chat_job(asked))

    async def talk(self, asked: ChatRequest, held: AsyncExitStack, *, most: int) -> AsyncGenerator[Piece]:
        """A dialogue's answer in pieces, behind the gate and in the figures as any other; `held` keeps its place.

        It has at most `most` tokens where the request does not say how many. Raises HttpError for what can be known
        before the first piece.
        """
        job = await self._chat_job(asked, most=most)
        await held.enter_async_context(self.gate.entered())
        return _Answer(asked, job, Clock(self.metrics, asked.model)).pieces()

    async def complete(self, request: Request) -> Response:
        """POST /v1/completions."""
        asked = await read_body(request, CompletionRequest)
        model = self._model(asked.model)
        prompts = await self._encoded(lambda texts: list(map(model.encode_text, texts)), asked.prompts)
        return await self._answer(request, asked, job_of(asked, model, prompts))

    async def score(self, request: Request) -> Response:
        """POST /v1/score."""
        asked = await read_body(request, ScoreRequest)
        scorer = self._scorer(asked.model)
        rows = await self._encoded(lambda dialogues: [scorer.encode(one) for one in dialogues], dialogues_of(asked))
        for number, row in enumerate(rows):
            if len(row) > scorer.context_tokens:
                raise too_long(len(row), 0, scorer.context_tokens, f"messages[{number}]")
        async with self.gate.entered():
            scores = await unless_gone(request.receive, self._scores(scorer, rows))
        data = [{"index": index, "object": "score", "score": score} for index, score in enumerate(scores)]
        usage = Usage(sum(map(len, rows))).json()
        return as_json({"object": "list", "model": asked.model, "data": data, "usage": usage})

    async def list_models(self, _: Request) -> Response:
        """GET /v1/models."""
        return as_json({"object": "list", "data": [self._model_object(name) for name in self._names]})

    async def one_model(self, request: Request) -> Response:
        """GET /v1/models/NAME."""
        name = request.path_params["name"]
        if name not in self._names:
            raise no_model(name)
        return as_json(self._model_object(name))

    async def health(self, _: Request) -> Response:
        """GET /health: well is who says a token, or scores a word, of every model."""
        async with self._looking:  # who asks meanwhile hears what is found
            if time.monotonic() > self._looked + HEALTH_REST_SECONDS:
                for model in self.models.values():
                    await _well(model.name, _say(model))
                for scorer in self.scorers.values():
                    row = scorer.encode([Message("user", "Hello"), Message("assistant", "Hello")])
                    await _well(scorer.name, scorer.score([row]))
                self._looked = time.monotonic()
        return as_json({"status": "ok"})

    async def figures(self, _: Request) -> Response:
        """GET /metrics."""
        return Response(self.metrics.page(), media_type="text/plain; version=0.0.4")

    async def openapi(self, _: Request) -> Response:
        """GET /openapi.json."""
        return as_json(self._document)

    # --- what they share

    @property
    def _names(self) -> list[str]:
        return [*self.models, *self.scorers]

    def _model_object(self, name: str) -> dict[str, Any]:
        kind = "policy" if name in self.models else "reward"
        return {"id": name, "object": "model", "created": 0, "owned_by": "fairlead", "kind": kind}

    def _model(self, name: str) -> Model:
        if name in self.scorers:
            raise not_a_policy(name)
        if name not in self.models:
            raise no_model(name)
        return self.models[name]

    def _scorer(self, name: str) -> Scorer:
        if name in self.models:
            raise not_a_reward_model(name)
        if name not in self.scorers:
            raise no_model(name)
        return self.scorers[name]

    async def _scores(self, scorer: Scorer, rows: Sequence[tuple[int, ...]]) -> list[float]:
        clock, reasons = Clock(self.metrics, scorer.name), list[str]()
        try:
            scores = await scorer.score(rows)
            if not all(map(math.isfinite, scores)):
                raise RuntimeError(f"{scorer.name} gave no finite score")
            reasons.append("stop")
            return scores
        finally:
            clock.end(sum(map(len, rows)), 0, reasons)

    async def _chat_job(self, asked: ChatRequest, *, most: int | None = None) -> Job:
        model = self._model(asked.model)
        prompt = await self._encoded(model.encode_chat, messages_of(asked.messages))
        return job_of(asked, model, [prompt], most=most)

    async def _encoded(self, encode: Callable[[Any], T], given: Any) -> T:
        """Off the loop: templates and tokenizers take their time on long texts."""
        try:
            return await asyncio.to_thread(encode, given)
        except UserError as error:
            raise HttpError(400, error.what, param="messages", code="invalid_value") from None

    async def _answer(self, request: Request, asked: ChatRequest | CompletionRequest, job: Job) -> Response:
        held = AsyncExitStack()
        await held.enter_async_context(self.gate.entered())
        answer = _Answer(asked, job, Clock(self.metrics, asked.model))
        if asked.stream:
            return Events(answer.events(), held)
        async with held:
            return as_json(await unless_gone(request.receive, answer.whole()))

    def _told(self, route: Handler) -> Handler:
        return told(route, self.metrics.refuse)


class _Answer:
    """One request's answer, whole or as events."""

    def __init__(self, asked: ChatRequest | CompletionRequest, job: Job, clock: Clock) -> None:
        self._asked, self._job, self._clock = asked, job, clock
        self._is_chat = isinstance(asked, ChatRequest)
        self._reasons: list[str] = []

    async def whole(self) -> dict[str, Any]:
        """The object of an answer that does not stream."""
        texts = [""] * len(self._job.asks)
        tokens: list[list] = [[] for _ in texts]
        reasons = [""] * len(texts)
        async with aclosing(self.pieces()) as new:
            async for piece in new:
                texts[piece.choice] += piece.text
                tokens[piece.choice] += piece.tokens
                reasons[piece.choice] = piece.finish or reasons[piece.choice]
        choices = [
            {"index": i, "finish_reason": reasons[i], "logprobs": self._logprobs(tokens[i], len(self._echoed(i)))}
            | self._said(i, texts[i])
            for i in range(len(texts))
        ]
        return self._object(choices) | {"usage": self._job.usage.json()}

    async def events(self) -> AsyncGenerator[bytes]:
        """Server-sent events; a failure in mid-stream is an event too."""
        usage = {"usage": None} if self._asked.with_usage else {}
        offsets = [0] * len(self._job.asks)
        try:
            if self._is_chat:
                for choice in range(len(self._job.asks)):
                    opening = {"index": choice, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
                    yield event(self._object([opening], chunk=True) | usage)
            for choice in range(len(offsets)):
                text = self._echoed(choice)
                if not text:
                    continue
                opening = {"index": choice, "text": text, "finish_reason": None, "logprobs": None}
                yield event(self._object([opening], chunk=True) | usage)
                offsets[choice] = len(text)
            async with aclosing(self.pieces()) as new:
                async for piece in new:
                    yield event(self._object([self._chunk(piece, offsets[piece.choice])], chunk=True) | usage)
                    offsets[piece.choice] += len(piece.text)
            if self._asked.with_usage:
                yield event(self._object([], chunk=True) | {"usage": self._job.usage.json()})
        except Exception:
            LOG.exception("a stream failed")
            failed = HttpError(500, "something failed here; the log says what", "server_error")
            yield b"data: " + failed.body() + b"\n\n"
        yield b"data: [DONE]\n\n"

    async def pieces(self) -> AsyncGenerator[Piece]:
        """What the model says, timed."""
        try:
            async with aclosing(pieces(self._job)) as all_of_them:
                async for piece in all_of_them:
                    self._clock.text()
                    if piece.finish:
                        self._reasons.append(piece.finish)
                    yield piece
        finally:
            self._clock.end(self._job.usage.prompt, self._job.usage.drawn, self._reasons)

    def _chunk(self, piece: Piece, offset: int) -> dict[str, Any]:
        said: dict[str, Any] = {"delta": {"content": piece.text} if piece.text else {}}
        if not self._is_chat:
            said = {"text": piece.text}
        logprobs = self._logprobs(piece.tokens, offset) if piece.tokens else None
        return {"index": piece.choice, "finish_reason": piece.finish, "logprobs": logprobs} | said

    def _said(self, choice: int, text: str) -> dict[str, Any]:
        if self._is_chat:
            return {"message": {"role": "assistant", "content": text, "refusal": None}}
        return {"text": self._echoed(choice) + text}

    def _echoed(self, choice: int) -> str:
        """The prompt, where a completion is to begin with it."""
        if not isinstance(self._asked, CompletionRequest) or not self._asked.echo:
            return ""
        return self._asked.prompts[choice // (self._asked.n or 1)]

    def _logprobs(self, tokens: Sequence, offset: int = 0) -> dict[str, Any] | None:
        asked = self._asked
        if isinstance(asked, ChatRequest):
            return chat_logprobs(self._job.model, tokens, asked.top_logprobs or 0) if asked.logprobs else None
        if asked.logprobs is None:
            return None
        return completion_logprobs(self._job.model, tokens, asked.logprobs, offset)

    def _object(self, choices: list[dict[str, Any]], *, chunk: bool = False) -> dict[str, Any]:
        kind = "chat.completion" if self._is_chat else "text_completion"
        if chunk and self._is_chat:
            kind += ".chunk"
        return {
            "id": self._job.id, "object": kind, "created": self._job.created, "model": self._asked.model,
            "choices": choices,
        }  # fmt: skip


async def _well(name: str, work: Awaitable[object]) -> None:
    """Raises HttpError (503) where the work fails or takes too long."""
    try:
        async with asyncio.timeout(HEALTH_SECONDS):
            await work
    except (TimeoutError, RuntimeError) as error:
        LOG.exception("%s does not answer", name)
        raise HttpError(503, f"{name} does not answer", "server_error", code="unhealthy") from error


async def _say(model: Model) -> None:
    """One token."""
    ask = Ask(model.encode_text("Hello"), SamplingConfig(max_new_tokens=1, temperature=0.0), seed=0)
    async with aclosing(model.generate(ask)) as tokens:
        await anext(tokens)


async def _nothing_here(request: Request, error: Any) -> Response:
    said = HttpError(error.status_code, f"{request.method} {request.url.path[:200]} is nothing here", code="not_found")
    return Response(said.body(), error.status_code, error.headers, "application/json")
