"""A decode step recorded once and played again, on a GPU.

A step of generation is hundreds of small kernels. A GPU runs them faster than Python starts them, so for all but large
models the GPU waits; a recorded step starts with one call. What is recorded are addresses: of the weights, which
training changes in place, and of the cache, so a cache that grows is recorded anew.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fairlead.batches import PackedBatch
from fairlead.models.kv_cache import SlotCache
from fairlead.models.roles import Roles
from fairlead.runtime.recording import Recording


class _Recorded(NamedTuple):
    """A step of so many rows, and what it reads."""

    recording: Recording
    tokens: Int[Tensor, "n"]
    lengths: Int[Tensor, "n"]


class DecodeGraphs:
    """Decode steps of one role over one cache, without gradients.

    They are recorded for 1, 2, 4, ... rows, up to all slots. Rows that nobody uses write to the first place of their
    slot and attend to that: a prompt that enters there later overwrites it.
    """

    def __init__(self, roles: Roles, role: str, cache: SlotCache) -> None:
        self._roles, self._role, self._cache = roles, role, cache
        self._recorded: dict[int, _Recorded] = {}  # at this capacity, by number of rows
        self._capacity = 0
        self._works = True

    def step(self, tokens: Int[Tensor, "B"]) -> Float[Tensor, "B V"]:
        """Logits after these tokens, which the cache expects; valid until the next call."""
        cache, count = self._cache, len(tokens)
        if not self._works:
            return self._roles(one_each(tokens), self._role, cache=cache)
        if cache.capacity != self._capacity:
            self._recorded.clear()
            self._capacity = cache.capacity
        size = min(1 << (count - 1).bit_length(), cache.num_slots)
        if size not in self._recorded:
            return self._first(tokens, size)[:count]
        recording, ids, lengths = self._recorded[size]
        _fill(ids, lengths, tokens, cache.lengths)
        return recording.play()[:count]

    def _first(self, tokens: Int[Tensor, "B"], size: int) -> Float[Tensor, "n V"]:
        """The step run as it is, and recorded; a model that cannot be recorded always runs as it is."""
        ids, lengths = tokens.new_zeros(size), tokens.new_ones(size)
        _fill(ids, lengths, tokens, self._cache.lengths)
        batch, slots = one_each(ids), self._cache.view(lengths)

        def run() -> Float[Tensor, "n V"]:
            slots.aim()
            return self._roles(batch, self._role, cache=slots)

        recording = Recording(run)
        self._works = recording.works
        if self._works:
            self._recorded[size] = _Recorded(recording, ids, lengths)
        return recording.first


def one_each(tokens: Int[Tensor, "B"]) -> PackedBatch:
    """One new token per row; positions come from the cache."""
    none = torch.zeros(0, dtype=torch.int64, device=tokens.device)
    return PackedBatch(tokens, torch.zeros_like(tokens), (1,) * len(tokens), none, none.float())


def _fill(ids: Tensor, lengths: Tensor, tokens: Tensor, of_rows: Tensor) -> None:
    """The rows in use in front; a row that is not has one token."""
    ids[: len(tokens)] = tokens
    lengths.fill_(1)
    lengths[: len(tokens)] = of_rows
