"""Keys and values of running generations. The only file that knows transformers' Cache API.

`SlotCache` serves models on our attention function: one slot per row, each with its own length, no padding.
`PaddedCache` serves the others: transformers' own cache over left-padded rows.
"""

from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache


class SlotCache(Cache):
    """Keys and values in [B, K, capacity, D] per layer, allocated once; row b holds `lengths[b]` tokens."""

    def __init__(self, num_rows: int, capacity: int, device: torch.device) -> None:
        super().__init__(layers=[])
        self.capacity = capacity
        self.lengths: Int[Tensor, "B"] = torch.zeros(num_rows, dtype=torch.int64, device=device)
        self.longest = 0
        self._keys: dict[int, Tensor] = {}
        self._values: dict[int, Tensor] = {}
        self._prompt_lengths: tuple[int, ...] | None = None

    def expect_prompts(self, lengths: tuple[int, ...]) -> None:
        """The next forward brings packed prompts of these lengths, one per slot, into empty slots."""
        self._prompt_lengths = lengths
        self.lengths = torch.tensor(lengths, dtype=torch.int64, device=self.lengths.device)
        self.longest = max(lengths)

    def expect_token(self) -> None:
        """The next forward brings one token per slot."""
        self._prompt_lengths = None
        self.lengths = self.lengths + 1
        self.longest += 1

    def keep(self, rows: Int[Tensor, "B2"]) -> None:
        """Drop all slots but these."""
        self.lengths = self.lengths[rows]
        self.longest = int(self.lengths.max())
        self._keys = {layer: keys[rows] for layer, keys in self._keys.items()}
        self._values = {layer: values[rows] for layer, values in self._values.items()}

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Store the new keys and values; return what the new tokens attend to (packed prompts: themselves)."""
        if layer_idx not in self._keys:
            shape = (len(self.lengths), key_states.shape[1], self.capacity, key_states.shape[3])
            self._keys[layer_idx] = key_states.new_zeros(shape)
            self._values[layer_idx] = value_states.new_zeros((*shape[:3], value_states.shape[3]))
        keys, values = self._keys[layer_idx], self._values[layer_idx]
        if self._prompt_lengths is not None:
            start = 0
            for row, length in enumerate(self._prompt_lengths):
                keys[row, :, :length] = key_states[0, :, start : start + length]
                values[row, :, :length] = value_states[0, :, start : start + length]
                start += length
            return key_states, value_states
        rows = torch.arange(len(self.lengths), device=keys.device)
        keys[rows, :, self.lengths - 1] = key_states[:, :, 0]
        values[rows, :, self.lengths - 1] = value_states[:, :, 0]
        return keys[:, :, : self.longest], values[:, :, : self.longest]

    def get_seq_length(self, layer_idx: int = 0) -> int:  # noqa: ARG002
        """Tokens in the longest slot before the forward under way; positions are passed explicitly."""
        return 0 if self._prompt_lengths is not None else self.longest - 1

    @property
    def is_compileable(self) -> bool:
        """Shapes change with every token."""
        return False


class PaddedCache:
    """transformers' dynamic cache over left-padded rows, for models that ignore the attention interface."""

    def __init__(self) -> None:
        self.states = DynamicCache()
        self.mask: Int[Tensor, "B T"] | None = None

    def keep(self, rows: Int[Tensor, "B2"]) -> None:
        """Drop all rows but these."""
        self.states.batch_select_indices(rows)
        assert self.mask is not None
        self.mask = self.mask[rows]


AnyCache = SlotCache | PaddedCache
