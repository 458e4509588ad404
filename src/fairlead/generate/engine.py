"""Generation by continuous batching: prompts in, tokens and their log-probabilities out.

Finished rows leave the running batch, waiting prompts enter it, and equal prompts are read once. A request's tokens
depend on its prompt, its seed and the sampling options, not on its neighbours in the batch (up to rounding of the
matrix products). The same engine serves chat, evaluation, rollouts and HTTP.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch

from fairlead.config.common import SamplingConfig
from fairlead.generate.batch import Batch
from fairlead.generate.requests import Request, Response, uniforms_of
from fairlead.models.prepacked import Prepacked
from fairlead.models.roles import Roles
from fairlead.runtime.machine import free_memory_bytes
from fairlead.runtime.ranks import reshard
from fairlead.runtime.start import Runtime

ROWS_AT_ONCE = 64


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
        heard = (lambda request: on_token(request.index, request.tokens[-1])) if on_token else None
        requests = [
            Request(index, prompt, sampling, uniforms_of(seed, sampling.max_new_tokens), limit, on_token=heard)
            for index, (prompt, seed, limit) in enumerate(zip(prompts, seeds, limits, strict=True))
        ]
        batch = self.batch()
        for request in requests:
            batch.add(request)
        with self.weights():
            while self._any_left(batch.busy):
                batch.turn()
        if self._runtime.sharded:
            reshard(self._roles)
        return [request.response for request in requests]

    def batch(self) -> Batch:
        """An empty batch, to which requests may be added at any time; its turns belong inside `weights`."""
        return Batch(
            self._roles, self._role, self._end_token_ids, self._runtime, decode=self._decode,
            rows_at_once=self._rows_at_once,
        )  # fmt: skip

    def _any_left(self, mine: bool) -> bool:
        return self._runtime.ranks.any(mine) if self._runtime.sharded else mine

    @contextmanager
    def weights(self) -> Iterator[None]:
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
