"""Rewards and advantages from their definitions, one row of Python floats at a time."""

import math


def shape_rewards(score, logprobs, reference_logprobs, length, kl_coef):
    """The first `length` tokens of a row belong to the response."""
    rewards = []
    for t in range(len(logprobs)):
        reward = 0.0
        if t < length:
            reward -= kl_coef * (logprobs[t] - reference_logprobs[t])
        if t == length - 1:
            reward += score
        rewards.append(reward)
    return rewards


def gae(rewards, values, length, gamma, lam):
    """A_t = sum over l of (gamma lam)^l delta_{t+l}, written out as the double sum of Schulman et al. 2016, eq. 16."""

    def value(t):
        return values[t] if t < length else 0.0

    def delta(t):
        return rewards[t] + gamma * value(t + 1) - value(t)

    advantages = [0.0] * len(rewards)
    for t in range(length):
        advantages[t] = math.fsum((gamma * lam) ** (u - t) * delta(u) for u in range(t, length))
    returns = [advantages[t] + values[t] if t < length else 0.0 for t in range(len(rewards))]
    return advantages, returns
