"""Batched generation with a key-value cache: prompts in, tokens and their log-probabilities out.

A request's tokens depend on its prompt, its seed and the sampling options, not on its neighbours in the batch (up to
rounding of the matrix products). The same engine serves chat, evaluation and rollouts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from fairlead.batches import PackedBatch
from fairlead.config.common import SamplingConfig
from fairlead.data.collate import collate
from fairlead.data.examples import Example
from fairlead.generate.sampling import next_tokens
from fairlead.models.kv_cache import AnyCache, PaddedCache, SlotCache
from fairlead.models.loading import output_embedding
from fairlead.models.roles import Roles
from fairlead.runtime.ranks import reshard
from fairlead.runtime.start import Runtime

ROWS_AT_ONCE = 64
COMPACT_BELOW = 0.75  # finished rows leave the cache when at most this share is still running


@dataclass(frozen=True)
class Response:
    """What the model said. `tokens` include the end token; `logprobs` are nats at the sampling temperature."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    finished: bool  # ended by itself: an end token or a stop string, not the length limit


@dataclass
class _Request:
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


class Engine:
    """Generates with one role of `Roles`. `decode` turns token ids into text, for stop strings only."""

    def __init__(
        self, roles: Roles, role: str, end_token_ids: Sequence[int], runtime: Runtime,
        *, decode: Callable[[list[int]], str] | None = None, rows_at_once: int = ROWS_AT_ONCE,
    ) -> None:  # fmt: skip
        self._roles, self._role, self._runtime, self._decode = roles, role, runtime, decode
        self._end_token_ids = frozenset(end_token_ids)
        self._rows_at_once = rows_at_once

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
            _Request(prompt, _uniforms(seed, sampling), limit)
            for prompt, seed, limit in zip(prompts, seeds, limits, strict=True)
        ]
        for start in range(0, len(requests), self._rows_at_once):
            self._run(requests, range(start, min(start + self._rows_at_once, len(requests))), sampling, on_token)
        if self._runtime.sharded:
            reshard(self._roles)
        return [Response(tuple(r.tokens), tuple(r.logprobs), r.finished) for r in requests]

    def _run(
        self, requests: list[_Request], chunk: range, sampling: SamplingConfig,
        on_token: Callable[[int, int], None] | None,
    ) -> None:  # fmt: skip
        rows = list(chunk)  # the request in each row of the cache
        active = list(rows)
        cache = self._new_cache([requests[i] for i in rows], sampling)
        batch = self._whole([requests[i] for i in rows])
        seen = self._seen([requests[i] for i in rows], sampling)
        for _ in range(sampling.max_new_tokens):
            logits = self._roles(batch, self._role, cache=cache)
            tokens, logprobs = self._draw(logits, [requests[i] for i in rows], seen, sampling)
            for row, index in enumerate(rows):
                if index in active:
                    self._note(requests[index], tokens[row], logprobs[row], sampling)
                    if on_token:
                        on_token(index, tokens[row])
            active = [i for i in active if requests[i].running]
            if not self._runtime.ranks.any(bool(active)) if self._runtime.sharded else not active:
                return
            keep = [row for row, index in enumerate(rows) if index in active] or [0]
            if len(keep) <= COMPACT_BELOW * len(rows):
                kept = torch.tensor(keep, device=self._runtime.device)
                cache.keep(kept)
                rows = [rows[row] for row in keep]
                tokens = [tokens[row] for row in keep]
                seen = seen[kept] if seen is not None else None
            if self._runtime.fast:
                batch = _one_each(tokens, self._runtime.device)
            else:  # the reference twin has no cache: everything again
                cache = self._new_cache([requests[i] for i in rows], sampling)
                batch = self._whole([requests[i] for i in rows])

    def _draw(
        self, logits: Tensor, requests: list[_Request], seen: Bool[Tensor, "B V"] | None, sampling: SamplingConfig
    ) -> tuple[list[int], list[float]]:
        position = max(len(request.tokens) for request in requests)  # all running rows are at the same one
        uniforms = torch.tensor([request.uniforms[position] for request in requests], device=logits.device)
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

    def _new_cache(self, requests: list[_Request], sampling: SamplingConfig) -> AnyCache:
        if not self._roles.packed[self._roles.roles[self._role].backbone]:
            return PaddedCache()
        capacity = max(len(request.prompt) for request in requests) + sampling.max_new_tokens
        return SlotCache(len(requests), capacity, self._runtime.device)

    def _whole(self, requests: list[_Request]) -> PackedBatch:
        rows = [(*request.prompt, *request.tokens) for request in requests]
        return collate([Example(row, (False,) * len(row), "") for row in rows]).to(self._runtime.device)

    def _seen(self, requests: list[_Request], sampling: SamplingConfig) -> Bool[Tensor, "B V"] | None:
        if sampling.repetition_penalty == 1.0:
            return None
        size = output_embedding(self._roles.causal_lm(self._role)).out_features
        seen = torch.zeros(len(requests), size, dtype=torch.bool, device=self._runtime.device)
        for row, request in enumerate(requests):
            seen[row, list(request.prompt)] = True
        return seen


def _uniforms(seed: int, sampling: SamplingConfig) -> list[float]:
    """A request's whole randomness, drawn at once from its own generator."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(sampling.max_new_tokens, generator=generator, dtype=torch.float64).tolist()


def _one_each(tokens: list[int], device: torch.device) -> PackedBatch:
    """One new token per row; positions come from the cache."""
    ids: Int[Tensor, "B"] = torch.tensor(tokens, dtype=torch.int64, device=device)
    none = torch.zeros(0, dtype=torch.int64, device=device)
    return PackedBatch(ids, torch.zeros_like(ids), (1,) * len(tokens), none, none.float())
