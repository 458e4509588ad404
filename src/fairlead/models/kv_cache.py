"""Keys and values of running generations. The only file that knows transformers' Cache API.

`SlotCache` serves models on our attention function: one slot per row, each with its own length; rows come and go.
`PaddedCache` serves the others: transformers' own cache over left-padded rows.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache

BLOCK = 32  # tokens by which all slots grow


class _Entering(NamedTuple):
    """Prompts on their way in: the first new row, and for each new row its prompt's place among the packed tokens."""

    first_row: int
    spans: tuple[slice, ...]


class SlotCache(Cache):
    """Keys and values in [slots, K, capacity, D] per layer; row b of the batch is slot b and holds `lengths[b]` tokens.

    Rows leave and new ones enter while the others stay where they are. The capacity grows by blocks with the longest
    row and is read whole, so that a batched product over it meets one contiguous tensor (half of the time of a slice).
    """

    def __init__(self, num_slots: int, device: torch.device) -> None:
        super().__init__(layers=[])
        self.lengths: Int[Tensor, "B"] = torch.zeros(0, dtype=torch.int64, device=device)
        self._num_slots, self._capacity, self._longest = num_slots, 0, 0
        self._keys: dict[int, Tensor] = {}
        self._values: dict[int, Tensor] = {}
        self._entering: _Entering | None = None
        self._places: tuple[Tensor, Tensor] = (self.lengths, self.lengths)  # of this step's tokens: row, place in it
        self._hidden: dict[int | None, Tensor] = {}  # of this step, by window

    @property
    def entering(self) -> bool:
        """Whether the next forward brings prompts, not one token per row."""
        return self._entering is not None

    def enter(self, lengths: tuple[int, ...], owners: tuple[int, ...]) -> None:
        """The next forward brings packed prompts of these lengths; new row i begins with prompt `owners[i]`."""
        ends = torch.tensor(lengths).cumsum(0).tolist()
        spans = tuple(slice(end - length, end) for end, length in zip(ends, lengths, strict=True))
        self._entering = _Entering(len(self.lengths), tuple(spans[owner] for owner in owners))
        entered = self.lengths.new_tensor([lengths[owner] for owner in owners])
        self.lengths = torch.cat([self.lengths, entered])
        assert len(self.lengths) <= self._num_slots
        self._reach(max(lengths))

    def expect_token(self) -> None:
        """The next forward brings one token per row."""
        self._entering = None
        self._hidden.clear()
        self._places = torch.arange(len(self.lengths), device=self.lengths.device), self.lengths
        self.lengths = self.lengths + 1
        self._reach(self._longest + 1)

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
        keys = self._keys[layer_idx] = self._room(self._keys.get(layer_idx), key_states)
        values = self._values[layer_idx] = self._room(self._values.get(layer_idx), value_states)
        if self._entering is not None:
            for row, span in enumerate(self._entering.spans, start=self._entering.first_row):
                length = span.stop - span.start
                keys[row, :, :length] = key_states[0, :, span]
                values[row, :, :length] = value_states[0, :, span]
            return key_states, value_states
        rows, places = self._places
        keys[rows, :, places] = key_states[:, :, 0]
        values[rows, :, places] = value_states[:, :, 0]
        return keys[: len(rows)], values[: len(rows)]

    def seen(self, window: int | None) -> Bool[Tensor, "B L"]:
        """Which cached tokens the new token of each row attends to, itself included."""
        positions, ends = torch.arange(self._capacity, device=self.lengths.device), self.lengths[:, None]
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
        self._longest = max(self._longest, longest)
        self._capacity = max(self._capacity, -(-self._longest // BLOCK) * BLOCK)

    def _room(self, stored: Tensor | None, states: Tensor) -> Tensor:
        """The layer's tensor with room for the longest row; new room holds zeros, which a mask must find finite."""
        if stored is not None and stored.shape[2] == self._capacity:
            return stored
        grown = states.new_zeros(self._num_slots, states.shape[1], self._capacity, states.shape[3])
        if stored is not None:
            grown[:, :, : stored.shape[2]] = stored
        return grown


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
