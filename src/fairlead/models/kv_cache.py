"""Keys and values of running generations. The only file that knows transformers' Cache API.

`SlotCache` serves models on our attention function: one slot per row, each with its own length; rows come and go.
`PaddedCache` serves the others: transformers' own cache over left-padded rows.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache

BLOCK = 32  # tokens by which all slots grow
CUDA_BLOCK = 256  # likewise, where every size means recording the step anew (decode_graphs.py)


class SlotCache(Cache):
    """Keys and values in [slots, K, capacity, D] per layer; row b of the batch is slot b and holds `lengths[b]` tokens.

    Rows leave and new ones enter while the others stay where they are. The capacity grows by blocks with the longest
    row and is read whole, so that a batched product over it meets one contiguous tensor (half of the time of a slice).
    """

    def __init__(self, num_slots: int, device: torch.device) -> None:
        super().__init__(layers=[])
        self.lengths: Int[Tensor, "B"] = torch.zeros(0, dtype=torch.int64, device=device)
        self.num_slots, self.capacity, self._longest = num_slots, 0, 0
        self._block = CUDA_BLOCK if device.type == "cuda" else BLOCK
        self._keys: dict[int, Tensor] = {}
        self._values: dict[int, Tensor] = {}
        self._entering: Tensor | None = None  # of the packed tokens, those that each new row in turn begins with
        self._places: tuple[Tensor, Tensor] = (self.lengths, self.lengths)  # of what comes next: its row, place in it
        self._hidden: dict[int | None, Tensor] = {}  # of this step, by window

    @property
    def entering(self) -> bool:
        """Whether the next forward brings prompts, not one token per row."""
        return self._entering is not None

    def enter(self, lengths: tuple[int, ...], owners: tuple[int, ...]) -> None:
        """The next forward brings packed prompts of these lengths; new row i begins with prompt `owners[i]`."""
        ends = torch.tensor(lengths).cumsum(0).tolist()
        entered = self.lengths.new_tensor([lengths[owner] for owner in owners])
        tokens = [torch.arange(ends[owner] - lengths[owner], ends[owner]) for owner in owners]
        rows = torch.arange(len(self.lengths), len(self.lengths) + len(owners), device=self.lengths.device)
        places = torch.cat([torch.arange(lengths[owner]) for owner in owners])
        self._entering = torch.cat(tokens).to(self.lengths.device)
        self._places = rows.repeat_interleave(entered), places.to(self.lengths.device)
        self.lengths = torch.cat([self.lengths, entered])
        assert len(self.lengths) <= self.num_slots
        self._reach(max(lengths))

    def expect_token(self) -> None:
        """The next forward brings one token per row."""
        self.lengths = self.lengths + 1
        self._reach(self._longest + 1)
        self.aim()

    def aim(self) -> None:
        """The next forward brings the last of the `lengths` tokens of each row."""
        self._entering = None
        self._hidden.clear()
        self._places = torch.arange(len(self.lengths), device=self.lengths.device), self.lengths - 1

    def view(self, lengths: Int[Tensor, "B"]) -> "SlotCache":
        """The same keys and values at this capacity, for rows of other lengths; `aim` comes before each forward."""
        other = SlotCache(self.num_slots, lengths.device)
        other.lengths, other.capacity, other._longest = lengths, self.capacity, self._longest
        other._keys, other._values = self._keys, self._values
        return other

    def keep(self, rows: Sequence[int]) -> None:
        """Row i of what goes on was row `rows[i]`. Only rows that change their place are copied."""
        kept = self.lengths.new_tensor(rows)
        self.lengths = self.lengths[kept]
        self._longest = int(self.lengths.max()) if rows else 0
        moved = [row for row, source in enumerate(rows) if row != source]
        if not moved:
            return
        places, sources = self.lengths.new_tensor(moved), kept[moved]
        for stored in (*self._keys.values(), *self._values.values()):
            stored[places] = stored[sources]

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Store the new keys and values; return what the new tokens attend to (packed prompts: themselves)."""
        if layer_idx not in self._keys:
            self._keys[layer_idx], self._values[layer_idx] = self._room(key_states), self._room(value_states)
        keys, values, (rows, places) = self._keys[layer_idx], self._values[layer_idx], self._places
        if self._entering is not None:
            keys[rows, :, places] = key_states[0].transpose(0, 1)[self._entering]
            values[rows, :, places] = value_states[0].transpose(0, 1)[self._entering]
            return key_states, value_states
        keys[rows, :, places] = key_states[:, :, 0]
        values[rows, :, places] = value_states[:, :, 0]
        return keys[: len(rows)], values[: len(rows)]

    def seen(self, window: int | None) -> Bool[Tensor, "B L"]:
        """Which cached tokens the new token of each row attends to, itself included."""
        positions, ends = torch.arange(self.capacity, device=self.lengths.device), self.lengths[:, None]
        mask = positions < ends
        return mask if window is None else mask & (positions >= ends - window)

    def hidden(self, window: int | None, dtype: torch.dtype) -> Float[Tensor, "B L"]:
        """To be added to scores: minus infinity for what is not `seen`, else 0; made once for all layers."""
        if window not in self._hidden:
            seen = self.seen(window)
            self._hidden[window] = torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(
                ~seen, -torch.inf
            )
        return self._hidden[window]

    def get_seq_length(self, layer_idx: int = 0) -> int:  # noqa: ARG002
        """Tokens in the longest row before the forward under way; positions are passed explicitly."""
        return 0 if self.entering else self._longest - 1

    @property
    def is_compileable(self) -> bool:
        """Shapes change with every token."""
        return False

    def _reach(self, longest: int) -> None:
        """Make room for a row of this length."""
        self._longest = max(self._longest, longest)
        if self._longest <= self.capacity:
            return
        self.capacity = -(-self._longest // self._block) * self._block
        for tensors in (self._keys, self._values):
            for layer, stored in tensors.items():
                grown = self._room(stored)
                grown[:, :, : stored.shape[2]] = stored
                tensors[layer] = grown

    def _room(self, states: Tensor) -> Tensor:
        """A layer's tensor for all slots; new room holds zeros, which a mask must find finite."""
        return states.new_zeros(self.num_slots, states.shape[1], self.capacity, states.shape[3])


class PaddedCache:
    """transformers' dynamic cache over left-padded rows, for models that ignore the attention interface."""

    def __init__(self) -> None:
        self.states = DynamicCache()
        self.mask: Int[Tensor, "B T"] | None = None

    def keep(self, rows: Sequence[int]) -> None:
        """Row i of what goes on was row `rows[i]`."""
        assert self.mask is not None
        kept = torch.tensor(rows, dtype=torch.int64, device=self.mask.device)
        self.states.batch_select_indices(kept)
        self.mask = self.mask[kept]


AnyCache = SlotCache | PaddedCache
