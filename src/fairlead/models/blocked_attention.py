"""Causal attention of long rows in blocks of queries, for CPUs: no score of a token with a later block is computed.

FlashAttention's scheme (Dao 2023, "FlashAttention-2", section 3.1) in batched products: the forward pass keeps the
result and the logarithm of each row's normaliser, the backward pass computes the scores again, block by block, so that
nothing of size T x T is ever held. torch's own CPU kernel takes the same memory, but its backward pass runs at 2 % of
the matrix rate (experiments/LOG.md, "Attention").
"""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK = 256  # queries whose scores exist at once


def blocked_attention(
    query: Float[Tensor, "S H T D"],
    key: Float[Tensor, "S K T D"],
    value: Float[Tensor, "S K T D"],
    *,
    scale: float,
    window: int | None,
) -> Float[Tensor, "S H T D"]:
    """Each token attends to itself and to those before it, within the window if there is one."""
    rows, heads, longest, width = query.shape
    grouped = query.reshape(rows, key.shape[1], heads // key.shape[1], longest, width)
    return _Blocked.apply(grouped, key, value, scale, window).reshape(query.shape)


class _Blocked(torch.autograd.Function):
    """Query [S, K, G, T, D]: the heads of a group are rows over one key head."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None) -> Tensor:
        out = torch.empty_like(query)
        normalisers = query.new_empty(query.shape[:-1], dtype=_exact(query.dtype))
        for queries, keys in _blocks(query.shape[3], window):
            scores = _scores(
                query[..., queries, :], key[..., keys, :], scale, hidden_keys(queries, keys, window, key.device)
            )
            normalisers[..., queries] = scores.logsumexp(-1)
            weights = scores.sub_(normalisers[..., queries, None]).exp_().to(query.dtype)
            out[..., queries, :] = _times(weights, value[..., keys, :])
        ctx.save_for_backward(query, key, value, out, normalisers)
        ctx.scale, ctx.window = scale, window
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # pyrefly: ignore[bad-override]
        (gradient,) = gradients
        query, key, value, out, normalisers = ctx.saved_tensors
        exact = normalisers.dtype
        of_query = torch.empty_like(query)
        of_key, of_value = torch.zeros_like(key, dtype=exact), torch.zeros_like(value, dtype=exact)
        shares = (gradient * out).sum(-1, dtype=exact)  # what the softmax takes out of each row
        for queries, keys in _blocks(query.shape[3], ctx.window):
            q, k, g = query[..., queries, :], key[..., keys, :], gradient[..., queries, :]
            hidden = hidden_keys(queries, keys, ctx.window, key.device)
            scores = _scores(q, k, ctx.scale, hidden)
            weights = scores.sub_(normalisers[..., queries, None]).exp_()
            of_value[..., keys, :] += _transposed_times(weights.to(query.dtype), g)
            of_weights = _times(g, value[..., keys, :].transpose(-1, -2)).to(exact)
            of_scores = of_weights.sub_(shares[..., queries, None]).mul_(weights).to(query.dtype)
            of_query[..., queries, :] = _times(of_scores, k) * ctx.scale
            of_key[..., keys, :] += _transposed_times(of_scores, q) * ctx.scale
        return of_query, of_key.to(key.dtype), of_value.to(value.dtype), None, None


def _blocks(longest: int, window: int | None) -> list[tuple[slice, slice]]:
    """Blocks of queries, each with the keys that any of them sees."""
    starts = range(0, longest, BLOCK)
    ends = [min(start + BLOCK, longest) for start in starts]
    firsts = [0 if window is None else max(0, start - window + 1) for start in starts]
    return [(slice(start, end), slice(first, end)) for start, end, first in zip(starts, ends, firsts, strict=True)]


def hidden_keys(queries: slice, keys: slice, window: int | None, device: torch.device) -> Bool[Tensor, "n L"]:
    """Which keys each query does not see: those behind it, and those before its window if there is one."""
    distance = torch.arange(queries.start, queries.stop, device=device)[:, None]
    distance = distance - torch.arange(keys.start, keys.stop, device=device)
    hidden = distance < 0
    return hidden if window is None else hidden | (distance >= window)


def _scores(query: Tensor, key: Tensor, scale: float, hidden: Tensor) -> Float[Tensor, "S K G n L"]:
    """Scaled products in float32 (or float64)."""
    products = _times(query, key.transpose(-1, -2)).to(_exact(query.dtype))
    return products.mul_(scale).masked_fill_(hidden, -torch.inf)


def _times(left: Float[Tensor, "S K G n a"], right: Float[Tensor, "S K a b"]) -> Float[Tensor, "S K G n b"]:
    """One product for all heads of a group."""
    return torch.matmul(left.flatten(2, 3), right).unflatten(2, left.shape[2:4])


def _transposed_times(left: Float[Tensor, "S K G n a"], right: Float[Tensor, "S K G n b"]) -> Float[Tensor, "S K a b"]:
    """Summed over the queries and the heads of a group."""
    return torch.matmul(left.flatten(2, 3).transpose(-1, -2), right.flatten(2, 3))


def _exact(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
