"""Where each algorithm comes to rest on an enumerable vocabulary, from samples and in exact expectation.

One prompt, one-token responses, fixed scores. With the KL penalty in the reward, or k2 in the loss, the optimum is
reference * exp(score / beta) / Z. The variants whose fixed point is another one are held to their own.
"""

import pytest
import torch

from fairlead.algos.advantages import gae, group_advantages, leave_one_out_advantages, shape_rewards
from fairlead.algos.kl import kl_estimate, kl_k1, kl_k2, kl_k3
from fairlead.algos.masked import whiten
from fairlead.algos.policy_loss import clipped_policy_loss
from fairlead.algos.preference_loss import dpo_loss
from fairlead.algos.schedules import learning_rate
from oracles.divergence import fixed_point_of_k3, fixed_point_of_std, tilted

VOCABULARY, BETA = 8, 0.5
CLIP = {"clip_eps_low": 0.2, "clip_eps_high": 0.2}
NUM_SAMPLES, NUM_ITERATIONS = 4096, 200


def bandit(seed):
    """Reference log-probabilities and scores of all responses."""
    generator = torch.Generator().manual_seed(seed)
    reference = torch.randn(VOCABULARY, dtype=torch.float64, generator=generator).log_softmax(0)
    return reference, torch.randn(VOCABULARY, dtype=torch.float64, generator=generator)


def distance(logits, wanted):
    """Total variation."""
    return 0.5 * (logits.detach().softmax(-1) - torch.tensor(wanted, dtype=torch.float64)).abs().sum().item()


def optimum(reference, scores, beta=BETA):
    return tilted(reference.exp().tolist(), scores.tolist(), beta)


# --- from samples

GROUP = torch.zeros(NUM_SAMPLES, dtype=torch.int64)
ONE_TOKEN = torch.ones(NUM_SAMPLES, 1, dtype=torch.bool)


def ppo(rewards):
    """Whitened generalised advantages; the critic is the best one there is, a constant."""
    values = rewards.mean().expand(NUM_SAMPLES, 1)
    advantages, _ = gae(rewards[:, None], values, ONE_TOKEN, gamma=1.0, lam=0.95)
    return whiten(advantages, ONE_TOKEN, shift_mean=True)[:, 0]


def reinforce_plus_plus(rewards):
    """Reward to go, normalised over the whole batch."""
    advantages, _ = gae(rewards[:, None], torch.zeros(NUM_SAMPLES, 1), ONE_TOKEN, gamma=1.0, lam=1.0)
    return whiten(advantages, ONE_TOKEN, shift_mean=True)[:, 0]


def rloo(rewards):
    return leave_one_out_advantages(rewards, GROUP)


def grpo_without_std(rewards):
    return group_advantages(rewards, GROUP, divide_by_std=False)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("estimator", "kl_in"),
    [(ppo, "reward"), (rloo, "reward"), (reinforce_plus_plus, "reward"), (grpo_without_std, "reward"),
     (grpo_without_std, "loss")],
)  # fmt: skip
def test_reaches_the_optimum_from_samples(estimator, kl_in, seed):
    reference, scores = bandit(seed)
    generator = torch.Generator().manual_seed(seed)
    logits = reference.clone().requires_grad_()
    optimizer = torch.optim.SGD([logits])
    start = distance(logits, optimum(reference, scores))
    for iteration in range(NUM_ITERATIONS):
        optimizer.param_groups[0]["lr"] = learning_rate(
            iteration, peak=3.0, schedule="linear", warmup_steps=0, num_steps=NUM_ITERATIONS
        )
        shares = logits.detach().softmax(-1)
        tokens = torch.multinomial(shares, NUM_SAMPLES, replacement=True, generator=generator)
        logprobs = logits.log_softmax(-1)[tokens]
        old = logprobs.detach()
        kl_coef = BETA if kl_in == "reward" else 0.0
        rewards = shape_rewards(scores[tokens], old[:, None], reference[tokens][:, None], ONE_TOKEN, kl_coef=kl_coef)
        losses = clipped_policy_loss(logprobs, old, estimator(rewards[:, 0]), **CLIP)
        if kl_in == "loss":
            losses = losses + BETA * kl_k2(logprobs, reference[tokens])
        optimizer.zero_grad()
        losses.mean().backward()
        optimizer.step()
    assert start > 0.1
    assert distance(logits, optimum(reference, scores)) < 0.02


@pytest.mark.parametrize("seed", range(5))
def test_dpo_reaches_the_optimum_from_sampled_preferences(seed):
    """Pairs of all responses, each judged many times by a Bradley-Terry rater."""
    reference, scores = bandit(seed)
    generator = torch.Generator().manual_seed(seed)
    first, second = torch.triu_indices(VOCABULARY, VOCABULARY, offset=1)
    judged = 20_000
    wins = torch.binomial(
        torch.full((len(first),), float(judged)).double(), torch.sigmoid(scores[first] - scores[second]),
        generator=generator,
    ) / judged  # fmt: skip
    logits = reference.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([logits], max_iter=200, line_search_fn="strong_wolfe", tolerance_grad=1e-10)

    def step():
        logprobs = logits.log_softmax(-1)
        options = {"beta": BETA, "label_smoothing": 0.0}
        won, _, _ = dpo_loss(logprobs[first], logprobs[second], reference[first], reference[second], **options)
        lost, _, _ = dpo_loss(logprobs[second], logprobs[first], reference[second], reference[first], **options)
        optimizer.zero_grad()
        loss = (wins * won + (1.0 - wins) * lost).mean()
        loss.backward()
        return loss

    optimizer.step(step)
    assert distance(logits, optimum(reference, scores)) < 0.02


# --- in exact expectation: where the variants with another fixed point really go


def at_rest(reference, scores, kl, *, divide_by_std, beta=BETA, steps=20_000):
    """The policy after exact gradient steps: every response weighed with its own probability."""
    logits = reference.clone().requires_grad_()
    for _ in range(steps):
        logprobs = logits.log_softmax(-1)
        weights = logprobs.detach().exp()
        mean = (weights * scores).sum()
        scale = (weights * (scores - mean).square()).sum().sqrt() if divide_by_std else 1.0
        losses = clipped_policy_loss(logprobs, logprobs.detach(), (scores - mean) / scale, **CLIP)
        loss = (weights * (losses + beta * kl(logprobs, reference))).sum()
        (gradient,) = torch.autograd.grad(loss, logits)
        with torch.no_grad():
            logits -= gradient
        if gradient.abs().max() < 1e-7:
            break
    return logits


@pytest.mark.parametrize("seed", range(3))
def test_grpo_divided_by_the_deviation_has_the_optimum_of_another_beta(seed):
    reference, scores = bandit(seed)
    logits = at_rest(reference, scores, kl_k2, divide_by_std=True, beta=1.5)
    wanted = fixed_point_of_std(reference.exp().tolist(), scores.tolist(), 1.5)
    assert distance(logits, wanted) < 1e-3
    assert distance(logits, optimum(reference, scores, 1.5)) > 0.01


@pytest.mark.parametrize("seed", range(3))
def test_grpo_divided_by_the_deviation_collapses_under_a_small_beta(seed):
    """The surer the policy, the smaller the deviation and the weaker the pull: at 0.5 nothing but one response is left.

    With k2 or the exact KL in the loss, that is, and on these scores.
    """
    reference, scores = bandit(seed)
    logits = at_rest(reference, scores, kl_k2, divide_by_std=True, steps=3000)
    assert logits.softmax(-1)[scores.argmax()] > 0.99
    assert max(optimum(reference, scores)) < 0.8


@pytest.mark.parametrize("divide_by_std", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_k3_in_the_loss_pulls_like_the_reverse_kl(seed, divide_by_std):
    reference, scores = bandit(seed)
    logits = at_rest(reference, scores, kl_k3, divide_by_std=divide_by_std)
    wanted = fixed_point_of_k3(reference.exp().tolist(), scores.tolist(), BETA, divide_by_std)
    assert distance(logits, wanted) < 1e-3
    assert distance(logits, optimum(reference, scores)) > 0.05


@pytest.mark.parametrize("seed", range(3))
def test_k1_in_the_loss_does_not_hold_at_all(seed):
    """Its mean gradient is 0, so the policy goes to the best response as if there were no penalty."""
    reference, scores = bandit(seed)
    with_penalty, without = (
        at_rest(reference, scores, kl, divide_by_std=False, steps=300) for kl in (kl_k1, lambda p, _: 0.0 * p)
    )
    torch.testing.assert_close(with_penalty, without)
    assert distance(with_penalty, optimum(reference, scores)) > 0.2


@pytest.mark.parametrize("estimator", ["k2", "k3"])
@pytest.mark.parametrize("seed", range(3))
def test_k2_or_k3_in_the_reward_keeps_only_what_it_raises(seed, estimator):
    """Taken off the reward as a number, k2 and k3 punish a response for becoming rarer than under the reference, which
    makes it rarer still. At rest score - beta k is the same for all that are left, and all that are left gained.
    """
    reference, scores = bandit(seed)
    logits = reference.clone().requires_grad_()
    for _ in range(1_000):
        logprobs = logits.log_softmax(-1).clamp(min=-40.0)  # what has gone stays gone, and finite
        weights = logprobs.detach().exp()
        shaped = scores - BETA * kl_estimate(logprobs.detach(), reference, estimator)
        losses = clipped_policy_loss(logprobs, logprobs.detach(), shaped - (weights * shaped).sum(), **CLIP)
        (gradient,) = torch.autograd.grad((weights * losses).sum(), logits)
        with torch.no_grad():
            logits -= gradient
    logprobs = logits.detach().log_softmax(-1)
    left = logprobs.exp() > 1e-3
    shaped = (scores - BETA * kl_estimate(logprobs, reference, estimator))[left]
    assert 1 <= int(left.sum()) < VOCABULARY
    assert (shaped.max() - shaped.min()).item() < 1e-2
    assert (logprobs[left] > reference[left]).all()
    assert distance(logits, optimum(reference, scores)) > 0.05
