"""Attention in blocks against torch's, and its gradients against torch's own differentiation."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from fairlead.models import blocked_attention as module
from fairlead.models.blocked_attention import blocked_attention


def draw(rows: int, heads: int, longest: int, width: int, *, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, heads, longest, width, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()


def expected(query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None) -> Tensor:
    distance = torch.arange(query.shape[2])[:, None] - torch.arange(query.shape[2])
    mask = (distance >= 0) & (distance < (window or query.shape[2]))
    return scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale, enable_gqa=True)


@given(
    rows=st.integers(1, 2), key_heads=st.integers(1, 3), group=st.integers(1, 3), longest=st.integers(1, 23),
    block=st.integers(1, 9), window=st.none() | st.integers(1, 25), seed=st.integers(0, 1000),
)  # fmt: skip
def test_values_and_gradients_are_those_of_torch(
    rows: int, key_heads: int, group: int, longest: int, block: int, window: int | None, seed: int
) -> None:
    inputs = [
        draw(rows, heads, longest, 4, seed=seed + i)
        for i, heads in enumerate((key_heads * group, key_heads, key_heads))
    ]
    upstream = draw(rows, key_heads * group, longest, 4, seed=seed + 3).detach()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", block)
        out = blocked_attention(*inputs, scale=0.3, window=window)
        gradients = torch.autograd.grad((out * upstream).sum(), inputs)
    plain = expected(*inputs, 0.3, window)
    torch.testing.assert_close(out, plain, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(gradients, torch.autograd.grad((plain * upstream).sum(), inputs), rtol=1e-9, atol=1e-9)


def test_16_bit_rows_are_as_close_as_their_rounding() -> None:
    """Errors against float64 stay within twice those of torch's own kernel on the same 16-bit numbers."""
    inputs = [draw(1, heads, 700, 16, seed=heads, dtype=torch.bfloat16) for heads in (4, 2, 2)]
    exact = [tensor.detach().double().requires_grad_() for tensor in inputs]
    truth = expected(*exact, 0.25, None)
    truths = torch.autograd.grad(truth.sum(), exact)

    def errors(out: Tensor) -> list[float]:
        found = (out, *torch.autograd.grad(out.sum(), inputs))
        return [float((one.double() - other).norm()) for one, other in zip(found, (truth, *truths), strict=True)]

    ours = errors(blocked_attention(*inputs, scale=0.25, window=None))
    theirs = errors(expected(*inputs, 0.25, None))
    assert all(own <= 2 * other for own, other in zip(ours, theirs, strict=True)), (ours, theirs)
