import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairlead.algos.advantages import (
    gae,
    group_advantages,
    leave_one_out_advantages,
    overlong_penalty,
    scores_equal,
    shape_rewards,
)
from oracles import advantages as oracle

NUMBERS = st.floats(-5, 5)
RATES = st.floats(0, 1)


@st.composite
def rollouts(draw):
    """Three [B, R] matrices, one [B] vector, and the length of each row."""
    width = draw(st.integers(1, 6))
    lengths = draw(st.lists(st.integers(0, width), min_size=1, max_size=4))
    row = st.lists(NUMBERS, min_size=width, max_size=width)
    matrices = [torch.tensor([draw(row) for _ in lengths], dtype=torch.float64) for _ in range(2)]
    scores = torch.tensor([draw(NUMBERS) for _ in lengths], dtype=torch.float64)
    mask = torch.arange(width)[None, :] < torch.tensor(lengths)[:, None]
    return *matrices, scores, mask, lengths


@given(rollouts(), RATES, RATES)
def test_gae_equals_the_double_sum(rollout, gamma, lam):
    rewards, values, _, mask, lengths = rollout
    advantages, returns = gae(rewards, values, mask, gamma=gamma, lam=lam)
    for b, length in enumerate(lengths):
        want_advantages, want_returns = oracle.gae(rewards[b].tolist(), values[b].tolist(), length, gamma, lam)
        assert advantages[b].tolist() == pytest.approx(want_advantages, abs=1e-9)
        assert returns[b].tolist() == pytest.approx(want_returns, abs=1e-9)


@given(rollouts(), RATES, RATES)
def test_gae_solves_its_linear_equations(rollout, gamma, lam):
    """A_t - gamma lam A_{t+1} = delta_t, as a matrix equation, row by row, in numpy."""
    rewards, values, _, mask, lengths = rollout
    advantages, _ = gae(rewards, values, mask, gamma=gamma, lam=lam)
    for b, length in enumerate(lengths):
        v = values[b, :length].numpy()
        deltas = rewards[b, :length].numpy() + gamma * np.append(v[1:], 0.0)[:length] - v
        expected = np.linalg.solve(np.eye(length) - gamma * lam * np.eye(length, k=1), deltas)
        np.testing.assert_allclose(advantages[b, :length].numpy(), expected, atol=1e-9)


@given(rollouts())
def test_gae_with_both_rates_1_is_future_reward_minus_value(rollout):
    rewards, values, _, mask, _ = rollout
    advantages, returns = gae(rewards, values, mask, gamma=1.0, lam=1.0)
    future = (rewards * mask).flip(1).cumsum(1).flip(1) * mask
    torch.testing.assert_close(advantages, future - values * mask)
    torch.testing.assert_close(returns, future)


@given(rollouts(), RATES)
def test_gae_with_lambda_0_is_the_td_error(rollout, gamma):
    rewards, values, _, mask, _ = rollout
    following = torch.nn.functional.pad((values * mask)[:, 1:], (0, 1))
    advantages, _ = gae(rewards, values, mask, gamma=gamma, lam=0.0)
    torch.testing.assert_close(advantages, (rewards + gamma * following - values) * mask)


def test_gae_by_hand():
    rewards, values = torch.tensor([[0.0, 0.0, 1.0, 9.0]]), torch.tensor([[0.5, 0.25, 0.75, 9.0]])
    mask = torch.tensor([[True, True, True, False]])
    advantages, returns = gae(rewards, values, mask, gamma=1.0, lam=0.5)
    # deltas: -0.25, 0.5, 0.25
    assert advantages.tolist() == [[-0.25 + 0.25 + 0.0625, 0.5 + 0.125, 0.25, 0.0]]
    assert returns.tolist() == [[0.5625, 0.875, 1.0, 0.0]]


@pytest.mark.parametrize("junk", [1e30, torch.inf, torch.nan])
def test_what_is_masked_never_matters(junk):
    mask = torch.tensor([[True, True, False], [False, False, False]])
    clean = torch.tensor([[1.0, 2.0, 0.0], [0.0, 0.0, 0.0]])
    dirty = clean.masked_fill(~mask, junk)
    rates = {"gamma": 0.9, "lam": 0.9}
    for a, b in zip(gae(dirty, dirty, mask, **rates), gae(clean, clean, mask, **rates), strict=True):
        assert torch.equal(a, b)
        assert a[~mask].tolist() == [0.0] * 4
    scores = torch.tensor([1.0, 1.0])
    rewards = shape_rewards(scores, dirty, -dirty, mask, kl_coef=0.5)
    assert torch.equal(rewards, shape_rewards(scores, clean, -clean, mask, kl_coef=0.5))
    assert rewards[~mask].tolist() == [0.0] * 4


def test_16_bit_numbers_are_summed_in_float32():
    generator = torch.Generator().manual_seed(0)
    rewards, values, logprobs = (torch.randn(2, 7, generator=generator).bfloat16() for _ in range(3))
    scores, group = rewards[0], torch.tensor([0, 0, 1, 1, 1, 2, 2])
    mask = torch.tensor([[True] * 7, [True] * 4 + [False] * 3])
    rates = {"gamma": 0.9, "lam": 0.8}
    found = *gae(rewards, values, mask, **rates), group_advantages(scores, group, divide_by_std=True)
    found += leave_one_out_advantages(scores, group), shape_rewards(scores[:2], logprobs, values, mask, kl_coef=0.3)
    rewards, values, logprobs, scores = (x.float() for x in (rewards, values, logprobs, scores))
    want = *gae(rewards, values, mask, **rates), group_advantages(scores, group, divide_by_std=True)
    want += leave_one_out_advantages(scores, group), shape_rewards(scores[:2], logprobs, values, mask, kl_coef=0.3)
    assert all(torch.equal(a, b) for a, b in zip(found, want, strict=True))
    assert {x.dtype for x in found} == {torch.float32}


def test_a_mask_with_a_hole_is_refused():
    row = torch.zeros(1, 3)
    with pytest.raises(AssertionError, match="prefix"):
        gae(row, row, torch.tensor([[True, False, True]]), gamma=1.0, lam=1.0)


@given(rollouts(), st.floats(0, 2), st.sampled_from(["k1", "k2", "k3"]))
def test_shape_rewards_equals_the_loop(rollout, kl_coef, estimator):
    logprobs, reference, scores, mask, lengths = rollout
    rewards = shape_rewards(scores, logprobs, reference, mask, kl_coef=kl_coef, estimator=estimator)
    for b, length in enumerate(lengths):
        want = oracle.shape_rewards(
            scores[b].item(), logprobs[b].tolist(), reference[b].tolist(), length, kl_coef, estimator
        )
        assert rewards[b].tolist() == pytest.approx(want, rel=1e-9, abs=1e-9)


@given(rollouts(), st.floats(0, 2))
def test_shaped_rewards_sum_to_the_score_less_the_kl(rollout, kl_coef):
    """Ziegler et al. 2019, eq. 2: R = r - beta * log(policy / reference) of the whole response, in numpy."""
    logprobs, reference, scores, mask, lengths = rollout
    rewards = shape_rewards(scores, logprobs, reference, mask, kl_coef=kl_coef).numpy()
    log_ratio = np.where(mask.numpy(), logprobs.numpy() - reference.numpy(), 0.0)
    expected = np.where(np.array(lengths) > 0, scores.numpy(), 0.0) - kl_coef * log_ratio.sum(1)
    np.testing.assert_allclose(rewards.sum(1), expected, atol=1e-9)


def test_the_score_stands_at_the_last_response_token_only():
    zeros = torch.zeros(2, 4)
    mask = torch.tensor([[True, True, True, False], [True, True, True, True]])
    rewards = shape_rewards(torch.tensor([2.0, 3.0]), zeros, zeros, mask, kl_coef=0.1)
    assert rewards.tolist() == [[0.0, 0.0, 2.0, 0.0], [0.0, 0.0, 0.0, 3.0]]


def test_targets_carry_no_gradient():
    row, mask = torch.zeros(1, 3, requires_grad=True), torch.ones(1, 3, dtype=torch.bool)
    rewards = shape_rewards(torch.zeros(1, requires_grad=True), row, row, mask, kl_coef=0.1)
    assert not any(x.requires_grad for x in (rewards, *gae(row, row, mask, gamma=1.0, lam=1.0)))


# --- groups of responses to one prompt

GROUPS = st.lists(st.tuples(NUMBERS, st.integers(0, 3)), min_size=1, max_size=10)


@given(GROUPS, st.booleans())
def test_group_advantages_equal_the_loop(rows, divide_by_std):
    scores, group = [r[0] for r in rows], [r[1] for r in rows]
    got = group_advantages(torch.tensor(scores, dtype=torch.float64), torch.tensor(group), divide_by_std=divide_by_std)
    assert got.tolist() == pytest.approx(oracle.group_advantages(scores, group, divide_by_std), rel=1e-6, abs=1e-9)


@given(GROUPS)
def test_leave_one_out_equals_the_loop(rows):
    scores, group = [r[0] for r in rows], [r[1] for r in rows]
    got = leave_one_out_advantages(torch.tensor(scores, dtype=torch.float64), torch.tensor(group))
    assert got.tolist() == pytest.approx(oracle.leave_one_out(scores, group), rel=1e-9, abs=1e-9)


@given(GROUPS)
def test_scores_equal_counts_different_ones(rows):
    found = scores_equal(torch.tensor([r[0] for r in rows], dtype=torch.float64), torch.tensor([r[1] for r in rows]))
    assert found.tolist() == [len({score for score, other in rows if other == group}) == 1 for _, group in rows]


def test_group_targets_carry_no_gradient():
    scores, group = torch.tensor([1.0, 2.0, 4.0], requires_grad=True), torch.tensor([0, 0, 0])
    for divide_by_std in (True, False):
        assert not group_advantages(scores, group, divide_by_std=divide_by_std).requires_grad
    assert not leave_one_out_advantages(scores, group).requires_grad


@given(GROUPS)
def test_groups_in_numpy(rows):
    """numpy's mean and unbiased deviation of each group by itself."""
    scores, group = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    given = torch.from_numpy(scores), torch.from_numpy(group)
    divided, centred = (group_advantages(*given, divide_by_std=x).numpy() for x in (True, False))
    alone, equal = leave_one_out_advantages(*given).numpy(), scores_equal(*given).numpy()
    for one in set(group.tolist()):
        members, mine = scores[group == one], group == one
        assert equal[mine].tolist() == [len(set(members.tolist())) == 1] * len(members)
        if len(set(members.tolist())) == 1:
            continue
        np.testing.assert_allclose(centred[mine], members - members.mean(), atol=1e-9)
        np.testing.assert_allclose(
            divided[mine], (members - members.mean()) / (members.std(ddof=1) + 1e-4), rtol=1e-6, atol=1e-9
        )
        others = (members.sum() - members) / (len(members) - 1)
        np.testing.assert_allclose(alone[mine], members - others, atol=1e-9)


@given(GROUPS)
def test_group_advantages_sum_to_0_in_every_group(rows):
    scores, group = torch.tensor([r[0] for r in rows], dtype=torch.float64), torch.tensor([r[1] for r in rows])
    for advantages in (
        group_advantages(scores, group, divide_by_std=True), group_advantages(scores, group, divide_by_std=False),
        leave_one_out_advantages(scores, group),
    ):  # fmt: skip
        for one in group.unique():
            assert advantages[group == one].sum().item() == pytest.approx(0.0, abs=1e-9)


@given(st.floats(-1e4, 1e4, width=32), st.integers(1, 9))
def test_a_group_of_equal_scores_learns_exactly_nothing(score, size):
    """Also where the mean of equal numbers rounds to another one."""
    scores, group = torch.full((size,), score), torch.zeros(size, dtype=torch.int64)
    for divide_by_std in (True, False):
        assert not group_advantages(scores, group, divide_by_std=divide_by_std).any()
    assert not leave_one_out_advantages(scores, group).any()


@given(st.lists(NUMBERS, min_size=2, max_size=8, unique=True), st.floats(0.5, 4), st.floats(-3, 3))
def test_dividing_by_the_deviation_forgets_scale_and_shift(scores, scale, shift):
    scores, group = torch.tensor(scores).double(), torch.zeros(len(scores), dtype=torch.int64)
    if scores.std() < 0.1:  # the 1e-4 in the denominator would show
        return
    one, other = (group_advantages(x, group, divide_by_std=True) for x in (scores, scale * scores + shift))
    torch.testing.assert_close(one, other, rtol=2e-3, atol=2e-3)


@given(st.integers(0, 40), st.integers(1, 10))
def test_overlong_penalty_equals_the_cases(length, soft):
    got = overlong_penalty(torch.tensor([length]), max_response_tokens=20, soft_tokens=soft)
    assert got.item() == pytest.approx(oracle.overlong_penalty(length, 20, soft), abs=1e-6)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=5), st.integers(1, 10))
def test_overlong_penalty_is_numpys_interpolation(lengths, soft):
    got = overlong_penalty(torch.tensor(lengths), max_response_tokens=20, soft_tokens=soft)
    np.testing.assert_allclose(got.numpy(), np.interp(lengths, [20 - soft, 20], [0.0, -1.0]), atol=1e-6)
