"""The attention function that transformers' models call: packed rows in training, cache slots in generation.

It is registered with transformers' attention interface under `IMPLEMENTATION`. Because no mask function is registered
beside it, transformers builds no masks: which tokens see which follows from `sequence_lengths` (packed) or from the
`cache` (slots). A model that ignores the interface is found by the load-time probe (loading.py) and runs padded.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

IMPLEMENTATION = "fairlead"


def _repeat_heads(states: Float[Tensor, "B K T D"], num_groups: int) -> Float[Tensor, "B H T D"]:
    """Each key-value head once per query head of its group."""
    return states if num_groups == 1 else states.repeat_interleave(num_groups, dim=1)


def _window_mask(length: int, window: int, device: torch.device) -> Tensor:
    """Causal mask [T, T] in which a token sees itself and the `window - 1` tokens before it."""
    distance = torch.arange(length, device=device)[:, None] - torch.arange(length, device=device)[None, :]
    return (distance >= 0) & (distance < window)


def packed_attention(
    query: Float[Tensor, "1 H N D"],
    key: Float[Tensor, "1 K N D"],
    value: Float[Tensor, "1 K N D"],
    sequence_lengths: tuple[int, ...],
    *,
    scale: float,
    window: int | None,
) -> Float[Tensor, "1 H N D"]:
    """Causal attention inside each of the sequences laid end to end; none sees another."""
    num_groups = query.shape[1] // key.shape[1]
    pieces = []
    for q, k, v in zip(*(states.split(list(sequence_lengths), dim=2) for states in (query, key, value)), strict=True):
        length = q.shape[2]
        mask = _window_mask(length, window, q.device) if window is not None and length > window else None
        pieces.append(
            scaled_dot_product_attention(
                q,
                _repeat_heads(k, num_groups),
                _repeat_heads(v, num_groups),
                attn_mask=mask,
                is_causal=mask is None,
                scale=scale,
            )
        )
    return torch.cat(pieces, dim=2)


def slot_attention(
    query: Float[Tensor, "B H 1 D"],
    key: Float[Tensor, "B K L D"],
    value: Float[Tensor, "B K L D"],
    slot_lengths: Int[Tensor, "B"],
    *,
    scale: float,
    window: int | None,
) -> Float[Tensor, "B H 1 D"]:
    """One new token per row over the cached tokens of its own slot; `slot_lengths` counts the new token."""
    batch, num_heads, _, width = query.shape
    positions = torch.arange(key.shape[2], device=key.device)
    mask = positions[None, :] < slot_lengths[:, None]
    if window is not None:
        mask &= positions[None, :] >= slot_lengths[:, None] - window
    grouped = query.reshape(batch, key.shape[1], -1, width)  # query heads of a group are rows over one key head
    out = scaled_dot_product_attention(grouped, key, value, attn_mask=mask[:, None, None, :], scale=scale)
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
    slot_lengths: Tensor | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """Entry point for transformers: query [B, H, T, D], result [B, T, H, D]. Dropout is never applied."""
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    if slot_lengths is not None:
        out = slot_attention(query, key, value, slot_lengths, scale=scale, window=sliding_window)
    else:
        assert sequence_lengths is not None, f"{type(module).__name__} was called without sequence_lengths"
        out = packed_attention(query, key, value, sequence_lengths, scale=scale, window=sliding_window)
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register(IMPLEMENTATION, attention)
