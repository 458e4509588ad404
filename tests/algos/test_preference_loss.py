import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import binary_cross_entropy_with_logits, margin_ranking_loss, mse_loss

from fairlead.algos.preference_loss import (
    dpo_loss,
    hinge_loss,
    ipo_loss,
    kto_loss,
    odds_ratio_loss,
    robust_dpo_loss,
    simpo_loss,
)
from oracles import losses

LOGPROBS = st.floats(-200, 0)
PAIRS = st.lists(st.tuples(LOGPROBS, LOGPROBS, LOGPROBS, LOGPROBS), min_size=1, max_size=5)


def cross_entropy(logits, label=1.0):
    """Of torch, one number per logit."""
    return binary_cross_entropy_with_logits(logits, torch.full_like(logits, label), reduction="none")


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
def test_is_the_binary_cross_entropy_of_torch(pairs, beta, label_smoothing):
    """Of the margin as a logit, against a label that is right with probability 1 - label_smoothing."""
    columns = torch.tensor(pairs, dtype=torch.float64).T.unbind()
    loss, chosen, rejected = dpo_loss(*columns, beta=beta, label_smoothing=label_smoothing)
    torch.testing.assert_close(loss, cross_entropy(chosen - rejected, 1.0 - label_smoothing), rtol=1e-9, atol=1e-12)


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


# --- the other losses on a margin

MARGINS = st.lists(st.floats(-30, 30), min_size=1, max_size=5)
FLIPPED = st.floats(0, 0.45)


def double(values):
    return torch.tensor(values, dtype=torch.float64)


@given(MARGINS, FLIPPED)
def test_robust_equals_the_loop(margins, label_smoothing):
    expected = [losses.robust_dpo(m, label_smoothing=label_smoothing) for m in margins]
    got = robust_dpo_loss(double(margins), label_smoothing=label_smoothing)
    torch.testing.assert_close(got, double(expected), rtol=1e-9, atol=1e-12)


@given(MARGINS, FLIPPED, st.floats(0.05, 2))
def test_losses_on_a_margin_are_made_of_those_of_torch(margins, flipped, beta):
    margin = double(margins)
    robust = ((1 - flipped) * cross_entropy(margin) - flipped * cross_entropy(margin, 0.0)) / (1 - 2 * flipped)
    torch.testing.assert_close(robust_dpo_loss(margin, label_smoothing=flipped), robust)
    squares = mse_loss(margin / beta, torch.full_like(margin, 1 / (2 * beta)), reduction="none")
    torch.testing.assert_close(ipo_loss(margin, beta=beta), squares)
    ranked = margin_ranking_loss(margin, torch.zeros_like(margin), torch.ones_like(margin), margin=1, reduction="none")
    torch.testing.assert_close(hinge_loss(margin), ranked)


@given(st.floats(-10, 10), FLIPPED)
def test_robust_averages_to_dpo_over_noisy_labels(margin, label_smoothing):
    """What it is made for: the expected loss under flipped labels is the loss under true ones."""
    right, wrong = (robust_dpo_loss(double([m]), label_smoothing=label_smoothing).item() for m in (margin, -margin))
    mean = (1 - label_smoothing) * right + label_smoothing * wrong
    assert mean == pytest.approx(losses.negative_log_sigmoid(margin), rel=1e-7, abs=1e-7)


def test_ipo_golden_numbers():
    _, chosen, rejected = dpo_loss(*GOLDEN, beta=0.1, label_smoothing=0.0)
    torch.testing.assert_close(ipo_loss(chosen - rejected, beta=0.1), torch.tensor([12.25, 25.0]))


@given(PAIRS, st.floats(0.05, 2))
def test_ipo_equals_the_loop(pairs, beta):
    columns = double(pairs).T.unbind()
    _, chosen, rejected = dpo_loss(*columns, beta=beta, label_smoothing=0.0)
    expected = [losses.ipo(*pair, beta=beta) for pair in pairs]
    torch.testing.assert_close(ipo_loss(chosen - rejected, beta=beta), double(expected), rtol=1e-7, atol=1e-7)


@given(MARGINS)
def test_hinge_equals_the_loop(margins):
    assert hinge_loss(double(margins)).tolist() == pytest.approx([losses.hinge(m) for m in margins])


# --- losses without a reference

MEANS = st.lists(st.tuples(st.floats(-12, -1e-3), st.floats(-12, -1e-3)), min_size=1, max_size=5)


@given(MEANS, st.floats(0.1, 10), st.floats(0, 3))
def test_simpo_equals_the_loop(pairs, beta, gamma):
    chosen, rejected = double(pairs).T
    expected = [losses.simpo(*pair, beta=beta, gamma=gamma) for pair in pairs]
    torch.testing.assert_close(simpo_loss(chosen, rejected, beta=beta, gamma=gamma), double(expected))


@given(MEANS, st.floats(0.1, 10), st.floats(0, 3))
def test_losses_without_a_reference_are_cross_entropies_of_torch(pairs, beta, gamma):
    chosen, rejected = double(pairs).T
    simpo = cross_entropy(beta * (chosen - rejected) - gamma)
    torch.testing.assert_close(simpo_loss(chosen, rejected, beta=beta, gamma=gamma), simpo)
    odds = cross_entropy(torch.logit(chosen.exp()) - torch.logit(rejected.exp()))
    torch.testing.assert_close(odds_ratio_loss(chosen, rejected), odds, rtol=1e-8, atol=1e-10)


@given(MEANS)
def test_odds_ratio_equals_the_loop(pairs):
    chosen, rejected = double(pairs).T
    expected = [losses.odds_ratio(*pair) for pair in pairs]
    torch.testing.assert_close(odds_ratio_loss(chosen, rejected), double(expected), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("logprob", [-1e-8, -1e-6, -1e-3, -0.6931471805599453, -20.0, -200.0])
def test_odds_ratio_is_finite_where_1_minus_p_rounds(logprob):
    """p so near 0 or 1 that 1 - p is 1 or 0 in float32: the loss against p = 1/2 is log(1 + (1 - p) / p)."""
    chosen = torch.tensor([logprob], requires_grad=True)
    loss = odds_ratio_loss(chosen, torch.tensor([-math.log(2)]))
    loss.sum().backward()
    assert loss.item() == pytest.approx(-logprob, rel=1e-5)
    assert chosen.grad.isfinite().all()
    assert chosen.grad.item() < 0


# --- unpaired

RESPONSES = st.lists(st.tuples(st.floats(-20, 0), st.floats(-20, 0), st.booleans()), min_size=1, max_size=6)
WEIGHTS = {"desirable_weight": 1.3, "undesirable_weight": 0.7}


@given(RESPONSES, st.floats(-3, 5), st.floats(0.05, 1))
def test_kto_equals_the_loop(responses, kl, beta):
    policy, reference = double([r[:2] for r in responses]).T
    desirable = torch.tensor([r[2] for r in responses])
    loss, reward = kto_loss(policy, reference, desirable, double(kl), beta=beta, **WEIGHTS)
    expected = [losses.kto(*r, kl, beta=beta, **WEIGHTS) for r in responses]
    torch.testing.assert_close(loss, double(expected), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(reward, beta * (policy - reference))


@given(RESPONSES, st.floats(-3, 5), st.floats(0.05, 1))
def test_kto_by_the_hyperbolic_tangent(responses, kl, beta):
    """1 - sigmoid(x) = (1 - tanh(x / 2)) / 2, in numpy; the sign of x is that of the label."""
    policy, reference, desirable = (np.array(column) for column in zip(*responses, strict=True))
    above = beta * (policy - reference - max(kl, 0.0)) * np.where(desirable, 1, -1)
    expected = np.where(desirable, 1.3, 0.7) * (1 - np.tanh(above / 2)) / 2
    columns = double(policy), double(reference), torch.tensor(desirable)
    loss, _ = kto_loss(*columns, double(kl), beta=beta, **WEIGHTS)
    np.testing.assert_allclose(loss.numpy(), expected, rtol=1e-9, atol=1e-12)


def test_kto_at_the_reference_costs_half_the_weight_and_pulls_apart():
    policy = torch.tensor([-3.0, -3.0], requires_grad=True)
    loss, _ = kto_loss(policy, policy.detach(), torch.tensor([True, False]), torch.tensor(-1.0), beta=0.5, **WEIGHTS)
    assert loss.tolist() == pytest.approx([0.65, 0.35])
    loss.sum().backward()
    assert policy.grad[0] < 0 < policy.grad[1]


@pytest.mark.parametrize(
    "loss",
    [
        lambda a, b: dpo_loss(a, b, b.flip(0), a.flip(0), beta=0.3, label_smoothing=0.2)[0],
        lambda a, b: robust_dpo_loss(a, label_smoothing=0.2), lambda a, b: ipo_loss(a, beta=0.3),
        lambda a, b: hinge_loss(a), lambda a, b: simpo_loss(a, b, beta=2.0, gamma=0.5), odds_ratio_loss,
        lambda a, b: kto_loss(a, b, b > -2.0, a[0].abs(), beta=0.3, **WEIGHTS)[0],
    ],
    ids=["dpo", "robust", "ipo", "hinge", "simpo", "odds_ratio", "kto"],
)  # fmt: skip
def test_16_bit_numbers_are_computed_in_float32(loss):
    a, b = torch.tensor([-0.131, -1.57, -4.03]).bfloat16(), torch.tensor([-3.02, -0.416, -1.01]).bfloat16()
    got, want = loss(a, b), loss(a.float(), b.float())
    assert got.dtype == torch.float32
    assert torch.equal(got, want)


def test_kto_takes_no_gradient_through_the_reference_point():
    kl = torch.tensor(0.4, requires_grad=True)
    loss, reward = kto_loss(
        torch.tensor([-1.0], requires_grad=True), torch.tensor([-2.0]), torch.tensor([True]), kl, beta=0.5, **WEIGHTS
    )
    loss.sum().backward()
    assert kl.grad is None
    assert not reward.requires_grad


@pytest.mark.parametrize(
    "loss",
    [
        lambda a, b: robust_dpo_loss(a - b, label_smoothing=0.2), lambda a, b: ipo_loss(a - b, beta=0.3),
        lambda a, b: hinge_loss(a - b), lambda a, b: simpo_loss(a, b, beta=2.0, gamma=0.5), odds_ratio_loss,
        lambda a, b: kto_loss(a, b, b > -2.0, double(0.4), beta=0.3, **WEIGHTS)[0],
    ],
)  # fmt: skip
def test_gradients_of_the_others(loss):
    chosen, rejected = double([-0.1, -1.5, -4.0]), double([-3.0, -0.4, -1.0])
    assert torch.autograd.gradcheck(loss, (chosen.requires_grad_(), rejected.requires_grad_()))


@pytest.mark.parametrize(
    ("loss", "highest"),
    [
        (lambda a, b: robust_dpo_loss(a - b, label_smoothing=0.2), None), (lambda a, b: hinge_loss(a - b), None),
        (lambda a, b: simpo_loss(a, b, beta=2.0, gamma=0.5), None), (odds_ratio_loss, None),
        (lambda a, b: ipo_loss(a - b, beta=0.3), 0.5),
    ],
)  # fmt: skip
def test_a_better_margin_costs_less(loss, highest):
    """Up to the margin that IPO wants; the others want ever more (robust DPO: while the label may be right)."""
    rejected = double([-2.0])
    margins = [-1.0, -0.5, 0.0, 0.4, highest or 0.9]
    values = [loss(rejected + m, rejected).item() for m in margins]
    assert values == sorted(values, reverse=True)
    assert len(set(values)) == len(values)
