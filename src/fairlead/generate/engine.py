"""Generation by continuous batching: prompts in, tokens and their log-probabilities out.

Finished rows leave the running batch, waiting prompts enter it, and equal prompts are read once. A request's tokens
depend on its prompt, its seed and the sampling options, not on its neighbours in the batch (up to rounding of the
matrix products). The same engine serves chat, evaluation and rollouts.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fairlead.batches import PackedBatch
from fairlead.config.common import SamplingConfig
from fairlead.data.collate import collate
from fairlead.data.examples import Example
from fairlead.generate.sampling import next_tokens
from fairlead.models.decode_graphs import DecodeGraphs, one_each
from fairlead.models.kv_cache import AnyCache, PaddedCache, SlotCache
from fairlead.models.loading import output_embedding
from fairlead.models.prepacked import Prepacked
from fairlead.models.roles import Roles
from fairlead.runtime.machine import free_memory_bytes
from fairlead.runtime.ranks import reshard
from fairlead.runtime.start import Runtime

ROWS_AT_ONCE = 64
ENTER_TOGETHER = 8  # places that must be free before waiting prompts are read: a read of one alone wastes the matrices
PROMPT_TOKENS = 8192  # read at once, unless one prompt is longer


@dataclass(frozen=True)
class Response:
    """What the model said. `tokens` include the end token; `logprobs` are nats at the sampling temperature."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    finished: bool  # ended by itself: an end token or a stop string, not the length limit


@dataclass
class _Request:
    index: int
    prompt: tuple[int, ...]
    uniforms: list[float]
    limit: int
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finished: bool = False

    @property
    def running(self) -> bool:
        """Whether another token is to be drawn."""
        return not self.finished and len(self.tokens) < self.limit


@dataclass
class _Running:
    """The requests that take part, in the order of the cache's rows."""

    cache: AnyCache
    seen: Bool[Tensor, "slots V"] | None  # tokens of prompt and response, for the repetition penalty
    requests: list[_Request] = field(default_factory=list)
    graphs: DecodeGraphs | None = None

    def enter(self, requests: Sequence[_Request]) -> None:
        """These were read into the rows behind the others."""
        if self.seen is not None:
            for row, request in enumerate(requests, start=len(self.requests)):
                self.seen[row] = False
                self.seen[row, list(request.prompt)] = True
        self.requests += requests

    def let_go(self) -> None:
        """Who has ended leaves; the last rows move into the places that become free."""
        rows = _closed_up([request.running for request in self.requests])
        if len(rows) == len(self.requests):
            return
        self.requests = [self.requests[row] for row in rows]
        self.cache.keep(rows)
        if self.seen is not None:
            self.seen[: len(rows)] = self.seen[rows]


def _closed_up(stays: Sequence[bool]) -> list[int]:
    """Which row each place holds after the others have left: those behind the new end fill the places before it."""
    count = sum(stays)
    movers = iter([row for row in range(count, len(stays)) if stays[row]])
    return [row if stays[row] else next(movers) for row in range(count)]


class Engine:
    """Generates with one role of `Roles`. `decode` turns token ids into text, for stop strings only."""

    def __init__(
        self, roles: Roles, role: str, end_token_ids: Sequence[int], runtime: Runtime,
        *, decode: Callable[[list[int]], str] | None = None, rows_at_once: int = ROWS_AT_ONCE,
    ) -> None:  # fmt: skip
        self._roles, self._role, self._runtime, self._decode = roles, role, runtime, decode
        self._end_token_ids = frozenset(end_token_ids)
        self._rows_at_once = rows_at_once
        self._prepacked: Prepacked | None = None

    @torch.no_grad()
    def generate(
        self,
        prompts: Sequence[tuple[int, ...]],
        sampling: SamplingConfig,
        *,
        seeds: Sequence[int],
        limits: Sequence[int] | None = None,
        on_token: Callable[[int, int], None] | None = None,
    ) -> list[Response]:
        """One response per prompt, in order. `on_token(request, token)` hears every token as it is drawn.

        `limits` are the tokens that each response may have, at most the sampling's; None allows all of them that.
        Under sharding every rank must bring equally many prompts.
        """
        limits = limits or [sampling.max_new_tokens] * len(prompts)
        requests = [
            _Request(index, prompt, _uniforms(seed, sampling), limit)
            for index, (prompt, seed, limit) in enumerate(zip(prompts, seeds, limits, strict=True))
        ]
        with self._weights():
            self._run(requests, sampling, on_token)
        if self._runtime.sharded:
            reshard(self._roles)
        return [Response(tuple(r.tokens), tuple(r.logprobs), r.finished) for r in requests]

    def _run(
        self, requests: list[_Request], sampling: SamplingConfig, on_token: Callable[[int, int], None] | None
    ) -> None:
        """Every turn is one forward: the prompts that enter are read, or each running request gets a token.

        So ranks that share the weights stay in step whatever each of them does; one that is done reads in vain.
        """
        cache = self._new_cache()
        waiting, running = list(requests), _Running(cache, self._seen(sampling), graphs=self._graphs(cache))
        while self._any_left(bool(waiting or running.requests)):
            entering = self._entering(waiting, running)
            if entering:
                del waiting[: len(entering)]
                logits = self._read(entering, running)
            elif running.requests:
                logits = self._step(running)
            else:
                self._read(requests[:1], _Running(self._new_cache(), None))
                continue
            drawn = entering or running.requests
            for request, token, logprob in zip(drawn, *self._draw(logits, drawn, running, sampling), strict=True):
                self._note(request, token, logprob, sampling)
                if on_token:
                    on_token(request.index, token)
            running.let_go()

    def _any_left(self, mine: bool) -> bool:
        return self._runtime.ranks.any(mine) if self._runtime.sharded else mine

    def _entering(self, waiting: Sequence[_Request], running: _Running) -> list[_Request]:
        """The waiting requests to be read now: once some places are free, as many as those and the memory allow."""
        free = self._rows_at_once - len(running.requests)
        if isinstance(running.cache, PaddedCache) and running.requests:
            return []  # left-padded rows run to their end together
        if running.requests and free < min(ENTER_TOGETHER, len(waiting)):
            return []
        entering: list[_Request] = []
        prompts: set[tuple[int, ...]] = set()
        for request in waiting[:free]:
            prompts.add(request.prompt)
            if entering and sum(map(len, prompts)) > PROMPT_TOKENS:
                break
            entering.append(request)
        return entering

    def _read(self, entering: Sequence[_Request], running: _Running) -> Float[Tensor, "B V"]:
        """Read prompts, each once, and let their requests take part; the logits of each one's first token."""
        prompts = list(dict.fromkeys(request.prompt for request in entering))
        owners = tuple(prompts.index(request.prompt) for request in entering)
        if isinstance(running.cache, SlotCache):
            running.cache.enter(tuple(map(len, prompts)), owners)
            logits = self._roles(self._whole(prompts), self._role, cache=running.cache)[list(owners)]
        else:
            running.cache = PaddedCache()
            logits = self._roles(self._whole([r.prompt for r in entering]), self._role, cache=running.cache)
        running.enter(entering)
        return logits

    def _step(self, running: _Running) -> Float[Tensor, "B V"]:
        """The logits of every running request's next token."""
        if not self._runtime.fast:  # the reference twin has no cache: everything again
            rows = [(*request.prompt, *request.tokens) for request in running.requests]
            return self._roles(self._whole(rows), self._role, cache=PaddedCache())
        latest = [request.tokens[-1] for request in running.requests]
        tokens = torch.tensor(latest, dtype=torch.int64, device=self._runtime.device)
        if isinstance(running.cache, SlotCache):
            running.cache.expect_token()
        if running.graphs is not None:
            return running.graphs.step(tokens)
        return self._roles(one_each(tokens), self._role, cache=running.cache)

    def _draw(
        self, logits: Float[Tensor, "B V"], drawn: Sequence[_Request], running: _Running, sampling: SamplingConfig
    ) -> tuple[list[int], list[float]]:
        """A token and its log-probability for each of the requests, which are the last ones of those running."""
        uniforms = torch.tensor([r.uniforms[len(r.tokens)] for r in drawn], device=logits.device)
        seen = (
            None if running.seen is None else running.seen[len(running.requests) - len(drawn) : len(running.requests)]
        )
        tokens, logprobs = next_tokens(
            logits, uniforms, seen, temperature=sampling.temperature, top_k=sampling.top_k, top_p=sampling.top_p,
            min_p=sampling.min_p, repetition_penalty=sampling.repetition_penalty,
        )  # fmt: skip
        if seen is not None:
            seen[torch.arange(len(tokens), device=tokens.device), tokens] = True
        return tokens.tolist(), logprobs.tolist()

    def _note(self, request: _Request, token: int, logprob: float, sampling: SamplingConfig) -> None:
        request.tokens.append(token)
        request.logprobs.append(logprob)
        request.finished = token in self._end_token_ids
        if sampling.stop and not request.finished:
            assert self._decode is not None, "stop strings need a decode function"
            text = self._decode(request.tokens)
            request.finished = any(stop in text for stop in sampling.stop)

    def _new_cache(self) -> AnyCache:
        if not self._roles.packed[self._roles.roles[self._role].backbone]:
            return PaddedCache()
        return SlotCache(self._rows_at_once, self._runtime.device)

    def _graphs(self, cache: AnyCache) -> DecodeGraphs | None:
        """Steps to be recorded, on a GPU that holds the whole model."""
        recordable = self._runtime.device.type == "cuda" and self._runtime.fast and not self._runtime.sharded
        return DecodeGraphs(self._roles, self._role, cache) if recordable and isinstance(cache, SlotCache) else None

    def _whole(self, rows: Sequence[tuple[int, ...]]) -> PackedBatch:
        return collate([Example(row, (False,) * len(row), "") for row in rows]).to(self._runtime.device)

    def _seen(self, sampling: SamplingConfig) -> Bool[Tensor, "slots V"] | None:
        """Room for the tokens that each running request has seen, where a penalty asks for them."""
        if sampling.repetition_penalty == 1.0:
            return None
        size = output_embedding(self._roles.causal_lm(self._role)).out_features
        return torch.zeros(self._rows_at_once, size, dtype=torch.bool, device=self._runtime.device)

    @contextmanager
    def _weights(self) -> Iterator[None]:
        """Weights laid out as few rows at a time read them fastest, where memory allows twice their copy.

        The copy is kept between calls where nothing is trained.
        """
        model = self._roles.backbone(self._roles.roles[self._role].backbone)
        room = self._prepacked or 2 * Prepacked.num_bytes(model) < free_memory_bytes()
        if self._runtime.sharded or not self._runtime.fast or not room:
            yield
            return
        prepacked = self._prepacked or Prepacked(model)
        if not any(role.trainable for role in self._roles.roles.values()):
            self._prepacked = prepacked
        with prepacked.in_use():
            yield


def _uniforms(seed: int, sampling: SamplingConfig) -> list[float]:
    """A request's whole randomness, drawn at once from its own generator."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(sampling.max_new_tokens, generator=generator, dtype=torch.float64).tolist()
