"""Requests that are generated together: those that end leave, waiting ones enter, and equal prompts are read once.

Every turn is one forward: the prompts that enter are read, or each running request gets a token. So ranks that share
the weights stay in step whatever each of them does; one that is done reads in vain.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fairlead.batches import PackedBatch
from fairlead.data.collate import collate
from fairlead.data.examples import Example
from fairlead.generate.requests import Request, repeating
from fairlead.generate.sampling import forbid, likeliest, next_tokens, penalise_drawn
from fairlead.models.decode_graphs import DecodeGraphs, one_each
from fairlead.models.kv_cache import AnyCache, PaddedCache, SlotCache
from fairlead.models.loading import output_embedding
from fairlead.models.roles import Roles
from fairlead.runtime.start import Runtime

ENTER_TOGETHER = 8  # places that must be free before waiting prompts are read: a read of one alone wastes the matrices
PROMPT_TOKENS = 8192  # read at once, unless one prompt is longer


class Batch:
    """The waiting and the running requests of one role; the latter in the order of the cache's rows."""

    def __init__(
        self, roles: Roles, role: str, end_token_ids: frozenset[int], runtime: Runtime,
        *, decode: Callable[[list[int]], str] | None, rows_at_once: int,
    ) -> None:  # fmt: skip
        self._roles, self._role, self._runtime, self._decode = roles, role, runtime, decode
        self._end_token_ids, self._rows_at_once = end_token_ids, rows_at_once
        self.waiting: list[Request] = []
        self.running: list[Request] = []
        self._spare: tuple[int, ...] = ()  # a prompt to be read in vain
        self._cache = self._new_cache()
        self._seen: Bool[Tensor, "slots V"] | None = None  # tokens of prompt and response, for the repetition penalty
        self._said: Int[Tensor, "slots V"] | None = None  # how often the response holds each token, for the others
        self._graphs = self._new_graphs()

    def add(self, request: Request) -> None:
        """Let a request wait for its turn."""
        self.waiting.append(request)
        self._spare = self._spare or request.prompt

    @property
    def busy(self) -> bool:
        """Whether a turn would do anything."""
        return bool(self.waiting or self.running)

    def turn(self) -> None:
        """One forward, after which the requests that took part in it have heard of their token."""
        self.waiting = [request for request in self.waiting if request.running]
        if any(request.cancelled for request in self.running):
            self._let_go()
        entering = self._entering()
        if entering:
            del self.waiting[: len(entering)]
            logits = self._read(entering)
        elif self.running:
            logits = self._step()
        else:
            if self._runtime.sharded and self._spare:
                self._roles(self._whole([self._spare]), self._role, cache=self._new_cache_for(self._spare))
            return
        drawn = entering or list(self.running)
        self._draw(logits, drawn)
        for request in drawn:
            if request.on_token:
                request.on_token(request)
        self._let_go()

    # --- who takes part

    def _entering(self) -> list[Request]:
        """The waiting requests to be read now: once some places are free, as many as those and the memory allow."""
        free = self._rows_at_once - len(self.running)
        if isinstance(self._cache, PaddedCache) and self.running:
            return []  # left-padded rows run to their end together
        if self.running and free < min(ENTER_TOGETHER, len(self.waiting)):
            return []
        entering: list[Request] = []
        prompts: set[tuple[int, ...]] = set()
        for request in self.waiting[:free]:
            prompts.add(request.prompt)
            if entering and sum(map(len, prompts)) > PROMPT_TOKENS:
                break
            entering.append(request)
        return entering

    def _let_go(self) -> None:
        """Who has ended leaves; the last rows move into the places that become free."""
        rows = _closed_up([request.running for request in self.running])
        if len(rows) == len(self.running):
            return
        self.running = [self.running[row] for row in rows]
        self._cache.keep(rows)
        for state in (self._seen, self._said):
            if state is not None:
                state[: len(rows)] = state[rows]

    # --- forwards

    def _read(self, entering: Sequence[Request]) -> Float[Tensor, "B V"]:
        """Read prompts, each once, and let their requests take part; the logits of each one's first token."""
        prompts = list(dict.fromkeys(request.prompt for request in entering))
        owners = tuple(prompts.index(request.prompt) for request in entering)
        if isinstance(self._cache, SlotCache):
            self._cache.enter(tuple(map(len, prompts)), owners)
            logits = self._roles(self._whole(prompts), self._role, cache=self._cache)[list(owners)]
        else:
            self._cache = PaddedCache()
            logits = self._roles(self._whole([r.prompt for r in entering]), self._role, cache=self._cache)
        first = len(self.running)
        self.running += entering
        self._remember(first)
        return logits

    def _step(self) -> Float[Tensor, "B V"]:
        """The logits of every running request's next token."""
        if not self._runtime.fast:  # the reference twin has no cache: everything again
            rows = [(*request.prompt, *request.tokens) for request in self.running]
            return self._roles(self._whole(rows), self._role, cache=PaddedCache())
        latest = [request.tokens[-1] for request in self.running]
        tokens = torch.tensor(latest, dtype=torch.int64, device=self._runtime.device)
        if isinstance(self._cache, SlotCache):
            self._cache.expect_token()
        if self._graphs is not None:
            return self._graphs.step(tokens)
        return self._roles(one_each(tokens), self._role, cache=self._cache)

    def _whole(self, rows: Sequence[tuple[int, ...]]) -> PackedBatch:
        return collate([Example(row, (False,) * len(row), "") for row in rows]).to(self._runtime.device)

    # --- tokens

    def _draw(self, logits: Float[Tensor, "B V"], drawn: Sequence[Request]) -> None:
        """A token for each of the requests, the last ones of those running; those that sample alike at once."""
        first = len(self.running) - len(drawn)
        alike: dict[tuple, list[int]] = {}
        for place, request in enumerate(drawn):
            s, p = request.sampling, request.penalties
            how = (s.temperature, s.top_k, s.top_p, s.min_p, s.repetition_penalty, p)
            alike.setdefault(how, []).append(place)
        for places in alike.values():
            rows = logits if len(places) == len(drawn) else logits[places]
            self._draw_alike(rows, [drawn[place] for place in places], [first + place for place in places])

    def _draw_alike(self, logits: Float[Tensor, "B V"], drawn: Sequence[Request], slots: Sequence[int]) -> None:
        sampling, penalties = drawn[0].sampling, drawn[0].penalties
        uniforms = torch.tensor([r.uniforms[len(r.tokens)] for r in drawn], device=logits.device)
        changed = logits
        if penalties.presence or penalties.frequency:
            assert self._said is not None
            changed = penalise_drawn(logits, self._said[slots], penalties.presence, penalties.frequency)
        if penalties.no_repeat_ngram:
            banned = [repeating((*r.prompt, *r.tokens), penalties.no_repeat_ngram) for r in drawn]
            changed = forbid(changed, banned)
        seen = None if sampling.repetition_penalty == 1.0 or self._seen is None else self._seen[slots]
        tokens, logprobs = next_tokens(
            logits, uniforms, seen, temperature=sampling.temperature, top_k=sampling.top_k, top_p=sampling.top_p,
            min_p=sampling.min_p, repetition_penalty=sampling.repetition_penalty,
            changed=None if changed is logits else changed,
        )  # fmt: skip
        if self._seen is not None:
            self._seen[slots, tokens] = True
        if self._said is not None:
            self._said[slots, tokens] += 1
        num_top = max(request.num_top for request in drawn)
        top = likeliest(logits, sampling.temperature, num_top) if num_top else [()] * len(drawn)
        for request, token, logprob, best in zip(drawn, tokens.tolist(), logprobs.tolist(), top, strict=True):
            self._note(request, token, logprob, best)

    def _note(self, request: Request, token: int, logprob: float, top: tuple[tuple[int, float], ...]) -> None:
        request.tokens.append(token)
        request.logprobs.append(logprob)
        if request.num_top:
            request.top.append(top[: request.num_top])
        request.finished = token in self._end_token_ids
        if request.sampling.stop and not request.finished:
            assert self._decode is not None, "stop strings need a decode function"
            text = self._decode(request.tokens)
            request.finished = any(stop in text for stop in request.sampling.stop)

    def _remember(self, first: int) -> None:
        """What the requests from this row on bring with them, for penalties; room is made once somebody asks for it."""
        if self._seen is None and any(r.sampling.repetition_penalty != 1.0 for r in self.running[first:]):
            self._seen, first = self._room(torch.bool), 0
        if self._said is None and any(r.penalties.presence or r.penalties.frequency for r in self.running[first:]):
            self._said = self._room(torch.int32)
        for row, request in enumerate(self.running[first:], start=first):
            if self._seen is not None:
                self._seen[row] = False
                self._seen[row, [*request.prompt, *request.tokens]] = True
            if self._said is not None:
                self._said[row] = 0
                ones = torch.ones(len(request.tokens), dtype=torch.int32, device=self._said.device)
                places = torch.tensor(request.tokens, dtype=torch.int64, device=self._said.device)
                self._said[row].index_add_(0, places, ones)

    def _room(self, dtype: torch.dtype) -> Tensor:
        size = output_embedding(self._roles.causal_lm(self._role)).out_features
        return torch.zeros(self._rows_at_once, size, dtype=dtype, device=self._runtime.device)

    # --- where keys and values are kept

    def _new_cache(self) -> AnyCache:
        if not self._roles.packed[self._roles.roles[self._role].backbone]:
            return PaddedCache()
        return SlotCache(self._rows_at_once, self._runtime.device)

    def _new_cache_for(self, prompt: tuple[int, ...]) -> AnyCache:
        cache = self._new_cache()
        if isinstance(cache, SlotCache):
            cache.enter((len(prompt),), (0,))
        return cache

    def _new_graphs(self) -> DecodeGraphs | None:
        """Steps to be recorded, on a GPU that holds the whole model."""
        recordable = self._runtime.device.type == "cuda" and self._runtime.fast and not self._runtime.sharded
        if not recordable or not isinstance(self._cache, SlotCache):
            return None
        return DecodeGraphs(self._roles, self._role, self._cache)


def _closed_up(stays: Sequence[bool]) -> list[int]:
    """Which row each place holds after the others have left: those behind the new end fill the places before it."""
    count = sum(stays)
    movers = iter([row for row in range(count, len(stays)) if stays[row]])
    return [row if stays[row] else next(movers) for row in range(count)]
