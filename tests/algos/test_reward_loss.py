import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import mse_loss, softplus

from fairlead.algos.reward_loss import (
    centring_loss,
    head_init_std,
    pairwise_log_exp,
    pairwise_log_sig,
    regression_loss,
)
from oracles import losses

BOTH = pytest.mark.parametrize("loss", [pairwise_log_sig, pairwise_log_exp])
SCORES = st.lists(st.tuples(st.floats(-50, 50), st.floats(-50, 50)), min_size=1, max_size=6)


@BOTH
@given(pairs=SCORES)
def test_equals_the_loop(loss, pairs):
    chosen, rejected = torch.tensor(pairs, dtype=torch.float64).T
    expected = [losses.negative_log_sigmoid(c - r) for c, r in pairs]
    torch.testing.assert_close(loss(chosen, rejected), torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=0)


@BOTH
@given(pairs=SCORES, margin=st.floats(0, 5))
def test_is_the_softplus_of_torch(loss, pairs, margin):
    chosen, rejected = torch.tensor(pairs, dtype=torch.float64).T
    torch.testing.assert_close(loss(chosen, rejected, margin), softplus(rejected - chosen + margin, threshold=1000))


@given(SCORES)
def test_centring_loss_is_the_squared_error_of_torch(pairs):
    chosen, rejected = torch.tensor(pairs, dtype=torch.float64).T
    torch.testing.assert_close(centring_loss(chosen, rejected), mse_loss(chosen, -rejected, reduction="none"))


@BOTH
def test_equal_scores_cost_ln_2_and_a_better_chosen_costs_less(loss):
    one, two = torch.tensor([1.0]), torch.tensor([2.0])
    assert loss(one, one).item() == pytest.approx(math.log(2))
    assert loss(two, one) < loss(one, one) < loss(one, two)


@BOTH
@pytest.mark.parametrize("difference", [1e4, -1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_large_differences_are_finite_in_value_and_gradient(loss, difference, dtype):
    chosen = torch.tensor([difference], dtype=dtype, requires_grad=True)
    rejected = torch.tensor([0.0], dtype=dtype, requires_grad=True)
    value = loss(chosen, rejected)
    assert value.dtype == torch.float32
    value.sum().backward()
    wrong = difference < 0
    assert value.item() == (-chosen.item() if wrong else 0.0)
    assert (chosen.grad.item(), rejected.grad.item()) == ((-1.0, 1.0) if wrong else (0.0, 0.0))


@BOTH
def test_gradient(loss):
    generator = torch.Generator().manual_seed(0)
    scores = [torch.randn(5, dtype=torch.float64, generator=generator, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(loss, scores)


def test_head_init_std():
    assert head_init_std(576) == pytest.approx(1 / math.sqrt(577))
    assert head_init_std(3) == 0.5


@BOTH
@given(pairs=SCORES, margin=st.floats(0, 5))
def test_a_margin_is_taken_off_the_difference(loss, pairs, margin):
    chosen, rejected = torch.tensor(pairs, dtype=torch.float64).T
    expected = [losses.negative_log_sigmoid(c - r - margin) for c, r in pairs]
    for given_as in (margin, torch.full_like(chosen, margin)):
        got = loss(chosen, rejected, given_as)
        torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=0)


@given(SCORES)
def test_centring_loss_is_the_square_of_the_sum(pairs):
    chosen, rejected = torch.tensor(pairs, dtype=torch.float64).T
    assert centring_loss(chosen, rejected).tolist() == pytest.approx([(c + r) ** 2 for c, r in pairs])


@given(SCORES)
def test_regression_is_the_square_of_the_error(pairs):
    scores, grades = torch.tensor(pairs, dtype=torch.float64).T
    assert regression_loss(scores, grades).tolist() == pytest.approx([(s - g) ** 2 for s, g in pairs])


def test_regression_of_16_bit_numbers_is_computed_in_float32():
    score, grade = torch.tensor([1.0], dtype=torch.bfloat16), torch.tensor([-(2.0**-9)], dtype=torch.bfloat16)
    loss = regression_loss(score, grade)
    assert (loss.dtype, loss.item()) == (torch.float32, (1 + 2.0**-9) ** 2)


@pytest.mark.parametrize("loss", [centring_loss, regression_loss, lambda c, r: pairwise_log_sig(c, r, 0.7)])
def test_gradients_of_the_others(loss):
    generator = torch.Generator().manual_seed(0)
    scores = [torch.randn(5, dtype=torch.float64, generator=generator, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(loss, scores)


@given(SCORES)
def test_regression_is_the_mean_squared_error_of_torch(pairs):
    scores, grades = torch.tensor(pairs, dtype=torch.float64).T
    torch.testing.assert_close(regression_loss(scores, grades), mse_loss(scores, grades, reduction="none"))
