"""Weights laid out for few rows at a time give the same bits, and only while asked to."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fairlead.models.prepacked import Prepacked


def layers(width: int, out: int, *, bias: bool, dtype: torch.dtype = torch.bfloat16) -> nn.Sequential:
    torch.manual_seed(width * 1000 + out)
    return nn.Sequential(nn.Linear(width, out, bias=bias), nn.Linear(out, width, bias=not bias)).to(dtype)


@given(
    rows=st.integers(1, 70), width=st.integers(1, 130), out=st.integers(1, 130), bias=st.booleans(),
    leading=st.sampled_from([(), (1,), (2,)]),
)  # fmt: skip
@torch.no_grad()
def test_the_same_bits(rows: int, width: int, out: int, bias: bool, leading: tuple[int, ...]) -> None:
    model = layers(width, out, bias=bias)
    inputs = torch.randn(*leading, rows, width).bfloat16()
    expected = model(inputs)
    with Prepacked(model).in_use():
        assert torch.equal(model(inputs), expected)


@torch.no_grad()
def test_the_copies_are_in_use_in_the_context_only() -> None:
    model, inputs = layers(8, 16, bias=True), torch.randn(3, 8).bfloat16()
    prepacked, before = Prepacked(model), model(inputs)
    model[0].weight.mul_(2.0)
    after = model(inputs)
    assert not torch.equal(before, after)
    with prepacked.in_use():
        assert torch.equal(model(inputs), before), "the copies are of the weights as they were"
    assert torch.equal(model(inputs), after)
    with pytest.raises(RuntimeError, match="primitive"), prepacked.in_use():
        model(inputs[:, :5])
    assert torch.equal(model(inputs), after)


@torch.no_grad()
def test_other_dtypes_stay_as_they_are() -> None:
    model, inputs = layers(8, 16, bias=True, dtype=torch.float32), torch.randn(3, 8)
    with Prepacked(model).in_use():
        assert "forward" not in vars(model[0])
        model(inputs)
