import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import mse_loss

from fairlead.algos.masked import masked_sum
from fairlead.algos.value_loss import clipped_value_loss
from oracles import losses

NUMBERS = st.floats(-4, 4)


@given(st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS), min_size=1, max_size=8), st.floats(0.01, 2))
def test_equals_the_loop(tokens, value_clip):
    values, old, returns = torch.tensor(tokens, dtype=torch.float64).T.unbind()
    expected = [losses.clipped_value(*token, value_clip) for token in tokens]
    torch.testing.assert_close(
        clipped_value_loss(values, old, returns, value_clip=value_clip), torch.tensor(expected, dtype=torch.float64)
    )


@given(st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS), min_size=1, max_size=8), st.floats(0.01, 2))
def test_is_half_the_larger_squared_error_of_torch(tokens, value_clip):
    values, old, returns = torch.tensor(tokens, dtype=torch.float64).T.unbind()
    held = values.clamp(old - value_clip, old + value_clip)
    errors = torch.stack([mse_loss(x, returns, reduction="none") for x in (values, held)])
    torch.testing.assert_close(clipped_value_loss(values, old, returns, value_clip=value_clip), errors.amax(0) / 2)


@pytest.mark.parametrize(
    ("value", "target", "loss", "gradient"),
    [
        (0.0, 1.0, 0.5, -1.0),
        (0.3, 1.0, 0.245, -0.7),
        (0.9, 1.0, 0.18, 0.0),  # moved past the clip towards the target: held at 0.4, nothing more to gain
        (-0.9, 1.0, 1.805, -1.9),  # moved past the clip away from it: still pulled back
    ],
)
def test_by_hand(value, target, loss, gradient):
    values = torch.tensor([value], dtype=torch.float64, requires_grad=True)
    got = clipped_value_loss(values, torch.zeros(1).double(), torch.tensor([target]).double(), value_clip=0.4)
    got.sum().backward()
    assert got.item() == pytest.approx(loss)
    assert values.grad.item() == pytest.approx(gradient)


def test_is_half_the_squared_error_before_the_first_update():
    generator = torch.Generator().manual_seed(0)
    values, returns = (torch.randn(2, 3, dtype=torch.float64, generator=generator) for _ in range(2))
    leaf = values.clone().requires_grad_()
    clipped_value_loss(leaf, values, returns, value_clip=0.4).sum().backward()
    torch.testing.assert_close(leaf.grad, values - returns)


def test_what_is_masked_never_matters_and_gradient():
    generator = torch.Generator().manual_seed(0)
    values, old, returns = (torch.randn(2, 3, dtype=torch.float64, generator=generator) for _ in range(3))
    mask = torch.tensor([[True, True, False], [True, False, False]])
    grads = []
    for filler in (0.0, 1e4):
        leaf = values.masked_fill(~mask, filler).requires_grad_()
        masked_sum(clipped_value_loss(leaf, old, returns, value_clip=0.4), mask).backward()
        grads.append(leaf.grad)
    assert torch.equal(*grads)
    assert torch.autograd.gradcheck(
        lambda v: clipped_value_loss(v, old, returns, value_clip=0.4), (values.requires_grad_(),)
    )
    assert clipped_value_loss(*(x.bfloat16() for x in (values, old, returns)), value_clip=0.4).dtype == torch.float32
