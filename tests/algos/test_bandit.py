"""The strongest end-to-end check: on a tiny enumerable vocabulary each method must reach its known optimum.

One prompt, one-token responses, every response in the batch with its exact probability: no sampling noise.
The maximiser of E[score] - beta KL(policy || reference) is reference * exp(score / beta) / Z.
"""

import pytest
import torch

from fairlead.algos.advantages import gae, shape_rewards
from fairlead.algos.logprobs import token_logprobs
from fairlead.algos.masked import whiten
from fairlead.algos.policy_loss import clipped_policy_loss
from fairlead.algos.preference_loss import dpo_loss
from fairlead.algos.schedules import learning_rate
from fairlead.algos.value_loss import clipped_value_loss
from oracles.divergence import tilted

VOCABULARY = 8
CLIP = {"clip_eps_low": 0.2, "clip_eps_high": 0.2}


def bandit():
    """Reference log-probabilities and scores of all responses."""
    generator = torch.Generator().manual_seed(0)
    reference = torch.randn(VOCABULARY, dtype=torch.float64, generator=generator).log_softmax(0)
    return reference, torch.randn(VOCABULARY, dtype=torch.float64, generator=generator)


def distance_to_optimum(logits, beta):
    """Total variation."""
    reference, scores = bandit()
    optimum = torch.tensor(tilted(reference.exp().tolist(), scores.tolist(), beta), dtype=torch.float64)
    return 0.5 * (logits.detach().softmax(-1) - optimum).abs().sum().item()


def all_logprobs(logits):
    """Log-probability of each response, as the trainer computes it: one row of logits per response."""
    return token_logprobs(logits.expand(VOCABULARY, -1), torch.arange(VOCABULARY))


def exact_moments(values, probabilities):
    mean = (probabilities * values).sum()
    return mean, (probabilities * (values - mean).square()).sum()


@pytest.mark.parametrize("beta", [0.5, 1.0])
@pytest.mark.parametrize("whitened", [False, True])
def test_ppo_converges_to_the_tilted_reference(beta, whitened):
    reference, scores = bandit()
    mask = torch.ones(VOCABULARY, 1, dtype=torch.bool)
    logits = reference.clone().requires_grad_()
    value = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([logits, value])
    start, num_iterations = distance_to_optimum(logits, beta), 400
    for iteration in range(num_iterations):
        # Whitening keeps the step at full size near the optimum, so the rate has to fall.
        rate = learning_rate(iteration, peak=1.0, schedule="linear", warmup_steps=0, num_steps=num_iterations)
        optimizer.param_groups[0]["lr"] = rate
        old_logprobs = all_logprobs(logits).detach()
        weights = old_logprobs.exp()
        old_values = value.detach().expand(VOCABULARY)
        rewards = shape_rewards(scores, old_logprobs[:, None], reference[:, None], mask, kl_coef=beta)
        advantages, returns = (x[:, 0] for x in gae(rewards, old_values[:, None], mask, gamma=1.0, lam=0.95))
        if whitened:
            mean, var = exact_moments(advantages, weights)
            advantages = whiten(advantages, mask[:, 0], shift_mean=True, mean=mean, var=var)
        for _ in range(4):
            policy_loss = (weights * clipped_policy_loss(all_logprobs(logits), old_logprobs, advantages, **CLIP)).sum()
            value_loss = (
                weights * clipped_value_loss(value.expand(VOCABULARY), old_values, returns, value_clip=0.4)
            ).sum()
            optimizer.zero_grad()
            (policy_loss + value_loss).backward()
            optimizer.step()
    assert start > 0.1
    assert distance_to_optimum(logits, beta) < 0.01


@pytest.mark.parametrize("beta", [0.5, 1.0])
def test_dpo_converges_to_the_same_optimum(beta):
    reference, scores = bandit()
    first, second = torch.triu_indices(VOCABULARY, VOCABULARY, offset=1)
    first_wins = torch.sigmoid(scores[first] - scores[second])  # Bradley-Terry preferences, exact
    logits = reference.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([logits], max_iter=200, line_search_fn="strong_wolfe", tolerance_grad=1e-10)
    start = distance_to_optimum(logits, beta)

    def step():
        logprobs = all_logprobs(logits)
        options = {"beta": beta, "label_smoothing": 0.0}
        won, _, _ = dpo_loss(logprobs[first], logprobs[second], reference[first], reference[second], **options)
        lost, _, _ = dpo_loss(logprobs[second], logprobs[first], reference[second], reference[first], **options)
        optimizer.zero_grad()
        loss = (first_wins * won + (1.0 - first_wins) * lost).mean()
        loss.backward()
        return loss

    optimizer.step(step)
    assert start > 0.1
    assert distance_to_optimum(logits, beta) < 0.01
