import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairlead.algos.preference_loss import dpo_loss
from oracles import losses

LOGPROBS = st.floats(-200, 0)
PAIRS = st.lists(st.tuples(LOGPROBS, LOGPROBS, LOGPROBS, LOGPROBS), min_size=1, max_size=5)
GOLDEN = tuple(torch.tensor(x) for x in ([-10.0, -5.0], [-12.0, -4.0], [-11.0, -5.5], [-11.5, -4.5]))


@pytest.mark.parametrize(("label_smoothing", "expected"), [(0.0, [0.6210, 0.6931]), (0.1, [0.6360, 0.6931])])
def test_golden_numbers(label_smoothing, expected):
    loss, chosen, rejected = dpo_loss(*GOLDEN, beta=0.1, label_smoothing=label_smoothing)
    torch.testing.assert_close(loss, torch.tensor(expected), rtol=0, atol=5e-5)
    torch.testing.assert_close(chosen, torch.tensor([0.1, 0.05]))
    torch.testing.assert_close(rejected, torch.tensor([-0.05, 0.05]))


@given(PAIRS, st.floats(0.01, 2), st.floats(0, 0.49))
def test_equals_the_loop(pairs, beta, label_smoothing):
    columns = torch.tensor(pairs, dtype=torch.float64).T.unbind()
    expected = torch.tensor(
        [losses.dpo(*pair, beta=beta, label_smoothing=label_smoothing) for pair in pairs], dtype=torch.float64
    ).T
    got = torch.stack(dpo_loss(*columns, beta=beta, label_smoothing=label_smoothing))
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)


@given(PAIRS, st.floats(0.01, 2), st.floats(0, 0.49))
def test_policy_equal_to_reference_costs_ln_2(pairs, beta, label_smoothing):
    chosen, rejected, _, _ = torch.tensor(pairs, dtype=torch.float64).T.unbind()
    loss, *rewards = dpo_loss(chosen, rejected, chosen, rejected, beta=beta, label_smoothing=label_smoothing)
    assert loss.tolist() == pytest.approx([math.log(2)] * len(pairs))
    assert not any(reward.any() for reward in rewards)


@given(PAIRS, st.floats(0.01, 0.1))
def test_swapping_chosen_with_rejected_negates_the_logit(pairs, beta):
    a, b, c, d = torch.tensor(pairs, dtype=torch.float64).T.unbind()
    forward, chosen, rejected = dpo_loss(a, b, c, d, beta=beta, label_smoothing=0.0)
    swapped, swapped_chosen, swapped_rejected = dpo_loss(b, a, d, c, beta=beta, label_smoothing=0.0)
    # -log sigmoid(-x) + log sigmoid(x) = x
    torch.testing.assert_close(swapped - forward, chosen - rejected, rtol=1e-9, atol=1e-9)
    assert torch.equal(swapped_chosen, rejected)
    assert torch.equal(swapped_rejected, chosen)


def test_label_smoothing_is_the_loss_of_the_swapped_pair_at_its_weight():
    forward, _, _ = dpo_loss(*GOLDEN, beta=1.0, label_smoothing=0.0)
    swapped, _, _ = dpo_loss(*(GOLDEN[i] for i in (1, 0, 3, 2)), beta=1.0, label_smoothing=0.0)
    smoothed, _, _ = dpo_loss(*GOLDEN, beta=1.0, label_smoothing=0.3)
    torch.testing.assert_close(smoothed, 0.7 * forward + 0.3 * swapped)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_gradient(label_smoothing):
    leaves = [x.double().requires_grad_() for x in GOLDEN]

    def loss(*inputs):
        return dpo_loss(*inputs, beta=0.3, label_smoothing=label_smoothing)[0]

    assert torch.autograd.gradcheck(loss, leaves)
    _, chosen, rejected = dpo_loss(*leaves, beta=0.3, label_smoothing=label_smoothing)
    assert not chosen.requires_grad
    assert not rejected.requires_grad


def test_large_margins_are_finite_in_value_and_gradient():
    policy = torch.tensor([0.0, -1e4], requires_grad=True)
    zeros = torch.zeros(2)
    loss, _, _ = dpo_loss(policy, policy.flip(0), zeros, zeros, beta=1.0, label_smoothing=0.1)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert policy.grad.isfinite().all()
