"""The attention function that transformers' models call: packed rows in training, cache slots in generation.

It is registered with transformers' attention interface under `IMPLEMENTATION`. Because no mask function is registered
beside it, transformers builds no masks: which tokens see which follows from `sequence_lengths` (packed) or from the
`cache` (slots). A model that ignores the interface is found by the load-time probe (loading.py) and runs padded.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from fairlead.models.blocked_attention import blocked_attention, hidden_keys

IMPLEMENTATION = "fairlead"


LONGEST_PLAIN = 1024  # tokens; up to here the scores [T, T] are written out on a CPU, see `_plain`; above, in blocks
FEW_ROWS = 4  # more rows of slots are attended to by two batched products on a CPU


Prefixes = tuple[tuple[int, int], ...]
"""Where the tokens begin that a sequence shares with an earlier one, and how many; empty where none does."""


class _Group(NamedTuple):
    """Sequences of similar length that are attended to together, as padded rows."""

    num_rows: int
    longest: int
    padded: Int[Tensor, "S*T"]  # the packed token that stands at each place; a place behind the end repeats the last
    real: Int[Tensor, "r"]  # the places of no padding
    tokens: Int[Tensor, "n"]  # the packed tokens of the group without shared prefixes, in order
    places: Int[Tensor, "n"]  # where each of them stands in the padded rows


@lru_cache(maxsize=64)
def _groups(
    lengths: tuple[int, ...], prefixes: Prefixes, device: torch.device
) -> tuple[tuple[_Group, ...], Int[Tensor, "N"]]:
    """Sequences grouped by length within a factor of two, and where each packed token is in the groups in a row."""
    starts = torch.tensor((0, *lengths)).cumsum(0).tolist()
    shared = prefixes or ((0, 0),) * len(lengths)
    wholes = [
        torch.cat([torch.arange(before) + at, torch.arange(length) + start])
        for (at, before), length, start in zip(shared, lengths, starts[:-1], strict=True)
    ]
    by_size: dict[int, list[int]] = {}
    for sequence, whole in enumerate(wholes):
        by_size.setdefault((len(whole) - 1).bit_length(), []).append(sequence)
    groups = []
    for members in by_size.values():
        longest = max(len(wholes[i]) for i in members)
        padded = torch.cat([wholes[i][torch.arange(longest).clamp(max=len(wholes[i]) - 1)] for i in members])
        real = [torch.arange(len(wholes[i])) + row * longest for row, i in enumerate(members)]
        tokens = torch.cat([wholes[i][shared[i][1] :] for i in members])
        places = torch.cat([there[shared[i][1] :] for i, there in zip(members, real, strict=True)])
        index = (tensor.to(device) for tensor in (padded, torch.cat(real), tokens, places))
        groups.append(_Group(len(members), longest, *index))
    order = torch.cat([group.tokens for group in groups]).argsort()
    return tuple(groups), order


class _ToRows(torch.autograd.Function):
    """Packed [N, ...] to padded rows [S * T, ...]. Places behind an end carry no gradient: no real token sees them."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, group: _Group) -> Tensor:
        ctx.group, ctx.num_tokens = group, len(states)
        return states[group.padded]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:  # pyrefly: ignore[bad-override]
        (gradient,) = gradients
        group = ctx.group
        out = gradient.new_zeros(ctx.num_tokens, *gradient.shape[1:])
        if len(group.real) == len(group.places):
            return out.index_copy_(0, group.tokens, gradient[group.places]), None
        return out.index_add_(0, group.padded[group.real], gradient[group.real]), None  # a prefix is in several rows


class _FromRows(torch.autograd.Function):
    """Padded rows [S * T, ...] to the group's packed tokens [n, ...]."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, group: _Group) -> Tensor:
        ctx.group, ctx.num_places = group, len(rows)
        return rows[group.places]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:  # pyrefly: ignore[bad-override]
        (gradient,) = gradients
        out = gradient.new_zeros(ctx.num_places, *gradient.shape[1:])
        return out.index_copy_(0, ctx.group.places, gradient), None


def _rows_attention(
    query: Float[Tensor, "S T H D"], key: Float[Tensor, "S T K D"], value: Float[Tensor, "S T K D"],
    *, scale: float, window: int | None,
) -> Float[Tensor, "S T H D"]:  # fmt: skip
    """Causal attention of equally long rows."""
    longest, num_groups = query.shape[1], query.shape[2] // key.shape[2]
    window = window if window is not None and window < longest else None
    q, k, v = (states.transpose(1, 2) for states in (query, key, value))
    hidden = partial(hidden_keys, slice(0, longest), slice(0, longest), window, q.device)
    if query.device.type == "cpu" and longest <= LONGEST_PLAIN:
        return _plain(q, k, v, hidden(), scale=scale).transpose(1, 2)
    if query.device.type == "cpu":
        return blocked_attention(q, k, v, scale=scale, window=window).transpose(1, 2)
    if num_groups > 1:
        k, v = (states.repeat_interleave(num_groups, dim=1) for states in (k, v))
    mask = None if window is None else ~hidden()
    return scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, scale=scale).transpose(1, 2)


def _plain(query: Tensor, key: Tensor, value: Tensor, hidden: Tensor, *, scale: float) -> Tensor:
    """Attention with its scores written out, for short rows on a CPU.

    torch's CPU flash kernel runs its backward at 2 % of the matrix rate; two batched products, with the query heads of
    a group as rows over one key head, are 4 times faster forward and backward (experiments/LOG.md, "Attention").
    """
    rows, heads, longest, width = query.shape
    num_groups = heads // key.shape[1]
    q = query.reshape(rows, key.shape[1], num_groups * longest, width)
    scores = torch.matmul(q * scale, key.transpose(-1, -2))
    # In place, as the product's backward needs only q and k; added, as a mask would be filled in the backward pass too
    scores.view(rows, -1, num_groups, longest, longest).add_(_minus_infinity(hidden, scores.dtype))
    return torch.matmul(torch.softmax(scores, dim=-1), value).reshape(rows, heads, longest, width)


def _minus_infinity(hidden: Bool[Tensor, "T T"], dtype: torch.dtype) -> Float[Tensor, "T T"]:
    """To be added to scores: minus infinity where they are hidden."""
    return torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(hidden, -torch.inf)


def packed_attention(
    query: Float[Tensor, "1 H N D"],
    key: Float[Tensor, "1 K N D"],
    value: Float[Tensor, "1 K N D"],
    sequence_lengths: tuple[int, ...],
    *,
    scale: float,
    window: int | None,
    prefixes: Prefixes = (),
) -> Float[Tensor, "1 H N D"]:
    """Causal attention inside each of the sequences laid end to end; none sees another, but for a prefix they share."""
    groups, order = _groups(sequence_lengths, prefixes, query.device)
    packed = [states[0].transpose(0, 1) for states in (query, key, value)]  # [N, heads, D]
    pieces = []
    for group in groups:
        q, k, v = (_ToRows.apply(s, group).unflatten(0, (group.num_rows, group.longest)) for s in packed)
        out = _rows_attention(q, k, v, scale=scale, window=window)
        pieces.append(_FromRows.apply(out.reshape(-1, *out.shape[2:]), group))
    out = pieces[0] if len(pieces) == 1 else torch.cat(pieces)[order]
    return out.transpose(0, 1)[None]


def slot_attention(
    query: Float[Tensor, "B H 1 D"],
    key: Float[Tensor, "B K L D"],
    value: Float[Tensor, "B K L D"],
    hidden: Float[Tensor, "B L"],
    *,
    scale: float,
) -> Float[Tensor, "B H 1 D"]:
    """One new token per row over the cached tokens of its own slot; `hidden` is minus infinity for those not seen."""
    batch, num_heads, _, width = query.shape
    grouped = query.reshape(batch, key.shape[1], -1, width)  # query heads of a group are rows over one key head
    bias = hidden[:, None, None, :]
    if query.device.type == "cpu" and batch > FEW_ROWS:
        scores = torch.matmul(grouped * scale, key.transpose(-1, -2)).add_(bias)
        out = torch.matmul(torch.softmax(scores, dim=-1), value)
    else:
        out = scaled_dot_product_attention(grouped, key, value, attn_mask=bias, scale=scale)
    return out.reshape(batch, num_heads, 1, width)


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,  # noqa: ARG001 - part of transformers' signature, always None here
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    sequence_lengths: tuple[int, ...] | None = None,
    shared_prefixes: Prefixes = (),
    hidden_in_slots: Callable[[int | None, torch.dtype], Tensor] | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """Entry point for transformers: query [B, H, T, D], result [B, T, H, D]. Dropout is never applied.

    ValueError for what is not computed here (soft caps, attention sinks): the load-time probe then makes it run padded.
    """
    if softcap is not None or s_aux is not None:
        raise ValueError(f"{type(module).__name__} asks for soft caps or attention sinks")
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    if hidden_in_slots is not None:
        out = slot_attention(query, key, value, hidden_in_slots(sliding_window, query.dtype), scale=scale)
    else:
        if sequence_lengths is None:
            raise ValueError(f"{type(module).__name__} does not hand sequence_lengths to its attention")
        out = packed_attention(
            query, key, value, sequence_lengths, scale=scale, window=sliding_window, prefixes=shared_prefixes
        )
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register(IMPLEMENTATION, attention)
