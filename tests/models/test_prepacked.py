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


class Mlp(nn.Module):
    """Two layers that read one input, as transformers names them, and one that reads what they make."""

    def __init__(self, width: int, inner: int, *, biases: tuple[bool, bool]) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = (nn.Linear(width, inner, bias=bias) for bias in biases)
        self.down_proj = nn.Linear(inner, width)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.down_proj(self.gate_proj(inputs).sin() * self.up_proj(inputs))


@given(
    rows=st.integers(1, 70), width=st.integers(1, 130), inner=st.integers(1, 130),
    biases=st.tuples(st.booleans(), st.booleans()),
)  # fmt: skip
@torch.no_grad()
def test_layers_that_read_one_input_say_the_same_bits(
    rows: int, width: int, inner: int, biases: tuple[bool, bool]
) -> None:
    torch.manual_seed(width * 1000 + inner)
    model, inputs = Mlp(width, inner, biases=biases).bfloat16(), torch.randn(rows, width).bfloat16()
    expected, calls = model(inputs), []
    with Prepacked(model).in_use(), pytest.MonkeyPatch.context() as patch:
        real = torch.ops.mkldnn._linear_pointwise
        patch.setattr(torch.ops.mkldnn, "_linear_pointwise", lambda *a: calls.append(a) or real(*a))
        assert torch.equal(model(inputs), expected)
        assert torch.equal(model(inputs), expected)
    assert len(calls) == 2 * (2 if biases[0] == biases[1] else 3)


@torch.no_grad()
def test_no_part_is_given_out_twice() -> None:
    """A layer that is called again, with what the same tensor holds now or with another, runs again."""
    model, inputs = Mlp(8, 6, biases=(False, False)).bfloat16(), torch.randn(3, 8).bfloat16()
    other = torch.randn(3, 8).bfloat16()
    plain = {
        (name, seen): getattr(model, name)(x)
        for name in ("gate_proj", "up_proj")
        for seen, x in (("inputs", inputs), ("doubled", inputs * 2), ("other", other))
    }
    with Prepacked(model).in_use():
        assert torch.equal(model.gate_proj(inputs), plain["gate_proj", "inputs"])
        assert torch.equal(model.up_proj(other), plain["up_proj", "other"])
        assert torch.equal(model.up_proj(inputs), plain["up_proj", "inputs"])
        inputs.mul_(2)
        assert torch.equal(model.up_proj(inputs), plain["up_proj", "doubled"])
