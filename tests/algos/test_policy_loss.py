import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairlead.algos.masked import masked_sum
from fairlead.algos.policy_loss import clipped_policy_loss, importance_weights, policy_statistics
from oracles import losses

CLIP = {"clip_eps_low": 0.2, "clip_eps_high": 0.3}
TOKENS = st.lists(st.tuples(st.floats(-4, 0), st.floats(-4, 0), st.floats(-3, 3)), min_size=1, max_size=8)


def rollout():
    """Logprobs with gradient, old logprobs and advantages, [3, 4], ratios on both sides of both clips."""
    generator = torch.Generator().manual_seed(1)
    old = -torch.rand(3, 4, dtype=torch.float64, generator=generator)
    logprobs = old + 0.5 * torch.randn(3, 4, dtype=torch.float64, generator=generator)
    return logprobs.requires_grad_(), old, torch.randn(3, 4, dtype=torch.float64, generator=generator)


@given(TOKENS, st.floats(0.01, 0.9), st.floats(0.01, 2))
def test_loss_and_statistics_equal_the_loop(tokens, low, high):
    logprobs, old, advantages = torch.tensor(tokens, dtype=torch.float64).T.unbind()
    expected = [losses.clipped_policy(*token, low, high) for token in tokens]
    clip = {"clip_eps_low": low, "clip_eps_high": high}
    torch.testing.assert_close(
        clipped_policy_loss(logprobs, old, advantages, **clip),
        torch.tensor([loss for loss, _ in expected], dtype=torch.float64),
    )
    statistics = policy_statistics(logprobs, old, advantages, **clip)
    assert statistics.clipped.tolist() == [was_clipped for _, was_clipped in expected]
    ratios = [math.exp(new - before) for new, before, _ in tokens]
    assert statistics.ratio.tolist() == pytest.approx(ratios)
    assert statistics.kl_k1.tolist() == pytest.approx([before - new for new, before, _ in tokens])
    assert statistics.kl_k3.tolist() == pytest.approx([r - 1 - math.log(r) for r in ratios], abs=1e-12)


@given(TOKENS, st.floats(0.01, 0.9), st.floats(0.01, 2), st.sampled_from([0.0, 1.3, 3.0]))
def test_loss_is_the_minimum_of_the_paper(tokens, low, high, dual_clip):
    """-min(r A, clip(r) A) of eq. 7, and its floor at dual_clip * A of Ye et al., eq. 5, in numpy."""
    logprobs, old, advantages = np.array(tokens).T
    ratio = np.exp(logprobs - old)
    gain = np.minimum(ratio * advantages, np.clip(ratio, 1 - low, 1 + high) * advantages)
    if dual_clip:
        gain = np.where(advantages < 0, np.maximum(gain, dual_clip * advantages), gain)
    columns = torch.tensor(tokens, dtype=torch.float64).T.unbind()
    got = clipped_policy_loss(*columns, clip_eps_low=low, clip_eps_high=high, dual_clip=dual_clip)
    np.testing.assert_allclose(got.numpy(), -gain, rtol=1e-9, atol=1e-12)


@given(TOKENS)
def test_clipped_are_the_tokens_without_a_gradient(tokens):
    logprobs, old, advantages = torch.tensor(tokens, dtype=torch.float64).T.unbind()
    advantages = advantages.where(advantages.abs() > 1e-3, torch.ones_like(advantages))
    leaf = logprobs.clone().requires_grad_()
    clipped_policy_loss(leaf, old, advantages, **CLIP).sum().backward()
    assert torch.equal(policy_statistics(logprobs, old, advantages, **CLIP).clipped, leaf.grad == 0)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "has_gradient"),
    [
        (1.0, 2.0, -2.0, True),
        (1.1, 2.0, -2.2, True),
        (1.5, 2.0, -2.6, False),  # held at 1.3
        (0.5, 2.0, -1.0, True),  # a good token that became rare is pulled back
        (1.5, -2.0, 3.0, True),  # a bad token that became common is pushed down
        (0.9, -2.0, 1.8, True),
        (0.5, -2.0, 1.6, False),  # held at 0.8
        (1.5, 0.0, 0.0, False),
    ],
)
def test_clip_table_by_hand(ratio, advantage, loss, has_gradient):
    logprobs = torch.tensor([math.log(ratio) - 1.0], dtype=torch.float64, requires_grad=True)
    value = clipped_policy_loss(
        logprobs, torch.tensor([-1.0], dtype=torch.float64), torch.tensor([advantage], dtype=torch.float64), **CLIP
    )
    value.sum().backward()
    assert value.item() == pytest.approx(loss)
    assert logprobs.grad.item() == pytest.approx(-advantage * ratio if has_gradient else 0.0)


def test_at_ratio_1_the_gradient_is_minus_the_advantage():
    logprobs, _, advantages = rollout()
    clipped_policy_loss(logprobs, logprobs.detach(), advantages, **CLIP).sum().backward()
    torch.testing.assert_close(logprobs.grad, -advantages)


def test_zero_advantage_gives_zero_gradient():
    logprobs, old, advantages = rollout()
    clipped_policy_loss(logprobs, old, torch.zeros_like(advantages), **CLIP).sum().backward()
    assert not logprobs.grad.any()


@pytest.mark.parametrize("junk", [1e4, -1e4, 1e30])
def test_what_is_masked_never_matters(junk):
    logprobs, old, advantages = (x.detach().float() for x in rollout())
    mask = torch.tensor([[True, True, True, False], [True, False, False, False], [True] * 4])
    grads = []
    for filler in (0.0, junk):
        leaf = logprobs.masked_fill(~mask, filler).requires_grad_()
        loss = clipped_policy_loss(leaf, old.masked_fill(~mask, 0.0), advantages.masked_fill(~mask, -3.0), **CLIP)
        masked_sum(loss, mask).backward()
        grads.append((masked_sum(loss, mask).item(), leaf.grad))
    assert grads[0][0] == grads[1][0]
    assert torch.equal(grads[0][1], grads[1][1])
    assert not grads[1][1][~mask].any()


@pytest.mark.parametrize("cuts", [[3], [1, 2], [1, 1, 1]])
@pytest.mark.parametrize("flat", [True, False])
def test_any_split_gives_the_same_gradient(cuts, flat):
    logprobs, old, advantages = rollout()
    mask = torch.tensor([[True, True, True, False], [True, False, False, False], [True] * 4])
    num_tokens = mask.sum()
    (whole,) = torch.autograd.grad(
        masked_sum(clipped_policy_loss(logprobs, old, advantages, **CLIP), mask) / num_tokens, logprobs
    )
    for part in zip(*(x.split(cuts) for x in (logprobs, old, advantages, mask)), strict=True):
        if flat:
            rows = [x[part[3]] for x in part[:3]]
            loss = clipped_policy_loss(*rows, **CLIP).sum()
        else:
            loss = masked_sum(clipped_policy_loss(*part[:3], **CLIP), part[3])
        (loss / num_tokens).backward(retain_graph=True)
    torch.testing.assert_close(logprobs.grad, whole)


def test_gradient():
    logprobs, old, advantages = rollout()
    assert policy_statistics(logprobs, old, advantages, **CLIP).clipped.any()
    assert torch.autograd.gradcheck(lambda x: clipped_policy_loss(x, old, advantages, **CLIP), (logprobs,))


def test_statistics_carry_no_gradient_and_16_bit_becomes_float32():
    logprobs, old, advantages = rollout()
    assert not any(x.requires_grad for x in policy_statistics(logprobs, old, advantages, **CLIP))
    short = (logprobs.bfloat16(), old.bfloat16(), advantages.bfloat16())
    long = [x.float() for x in short]
    loss = clipped_policy_loss(*short, dual_clip=1.1, **CLIP)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, clipped_policy_loss(*long, dual_clip=1.1, **CLIP))


# --- dual clip and importance weights


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "has_gradient"),
    [
        (1.1, 2.0, -2.2, True),  # a positive advantage is not touched
        (2.0, -2.0, 4.0, True),
        (3.5, -2.0, 6.0, False),  # held at three times the advantage
        (0.5, -2.0, 1.6, False),
    ],
)
def test_dual_clip_table_by_hand(ratio, advantage, loss, has_gradient):
    logprobs = torch.tensor([math.log(ratio) - 2.0], dtype=torch.float64, requires_grad=True)
    old, advantages = (torch.tensor([x], dtype=torch.float64) for x in (-2.0, advantage))
    value = clipped_policy_loss(logprobs, old, advantages, dual_clip=3.0, **CLIP)
    value.sum().backward()
    assert value.item() == pytest.approx(loss)
    assert logprobs.grad.item() == pytest.approx(-advantage * ratio if has_gradient else 0.0)


@given(TOKENS, st.floats(1.5, 5))
def test_dual_clip_equals_the_loop(tokens, dual_clip):
    columns = torch.tensor(tokens, dtype=torch.float64).T.unbind()
    expected = []
    for token in tokens:
        loss = losses.clipped_policy(*token, 0.2, 0.3)[0]
        expected.append(min(loss, -token[2] * dual_clip) if token[2] < 0 else loss)
    got = clipped_policy_loss(*columns, dual_clip=dual_clip, **CLIP)
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize(
    ("ratio", "advantage", "clipped"),
    [(1.35, 1.0, True), (1.25, 1.0, False), (1.35, -1.0, False), (0.75, -1.0, True), (0.85, -1.0, False),
     (0.75, 1.0, False), (1.35, 0.0, False), (0.75, 0.0, False)],
)  # fmt: skip
def test_clipped_by_hand(ratio, advantage, clipped):
    statistics = policy_statistics(torch.tensor([math.log(ratio)]), torch.zeros(1), torch.tensor([advantage]), **CLIP)
    assert statistics.clipped.tolist() == [clipped]


def test_a_ratio_at_the_edge_is_not_clipped():
    zeros, advantages = torch.zeros(2), torch.tensor([1.0, -1.0])
    assert not policy_statistics(zeros, zeros, advantages, clip_eps_low=0.0, clip_eps_high=0.0).clipped.any()


def test_dual_clip_of_16_bit_advantages_is_that_of_float32():
    logprobs, old, advantages = (torch.tensor([x]).bfloat16() for x in (-0.1, -3.0, -1.23))
    loss = clipped_policy_loss(logprobs, old, advantages, dual_clip=1.7, **CLIP)
    assert loss.item() == pytest.approx(-1.7 * advantages.item(), rel=1e-6)


def test_dual_clip_gradient_and_its_range():
    logprobs, old, advantages = rollout()
    assert torch.autograd.gradcheck(
        lambda x: clipped_policy_loss(x, old - 1.0, advantages, dual_clip=1.7, **CLIP), (logprobs,)
    )
    for too_low in (0.9, 1.0):
        with pytest.raises(AssertionError, match="dual clip"):
            clipped_policy_loss(logprobs, old, advantages, dual_clip=too_low, **CLIP)


@given(TOKENS, st.floats(0.5, 4))
def test_importance_weights_equal_the_loop(tokens, cap):
    trainer, sampler, _ = torch.tensor(tokens, dtype=torch.float64).T.unbind()
    expected = [min(cap, math.exp(a) / math.exp(b)) for a, b, _ in tokens]
    assert importance_weights(trainer, sampler, cap=cap).tolist() == pytest.approx(expected)


@given(TOKENS, st.floats(0.5, 4))
def test_importance_weights_in_numpy(tokens, cap):
    trainer, sampler, _ = np.array(tokens).T
    got = importance_weights(torch.from_numpy(trainer), torch.from_numpy(sampler), cap=cap)
    np.testing.assert_allclose(got.numpy(), np.minimum(np.exp(trainer - sampler), cap))


def test_importance_weights_carry_no_gradient():
    logprobs, old, _ = rollout()
    assert not importance_weights(logprobs, old, cap=2.0).requires_grad


def test_importance_weights_undo_a_wrong_sampler():
    """Uncapped, a mean over the sampler's tokens becomes one over the trainer's."""
    generator = torch.Generator().manual_seed(0)
    trainer, sampler = (torch.randn(5, dtype=torch.float64, generator=generator).log_softmax(0) for _ in range(2))
    values = torch.randn(5, dtype=torch.float64, generator=generator)
    weights = importance_weights(trainer, sampler, cap=1e9)
    torch.testing.assert_close((sampler.exp() * weights * values).sum(), (trainer.exp() * values).sum())
