"""Rewards and advantages from their definitions, one row of Python floats at a time."""

import math


def kl_estimate(logprob, reference, estimator):
    """Schulman's k1, k2 and k3 of one token."""
    k1 = logprob - reference
    return {"k1": k1, "k2": k1**2 / 2, "k3": math.exp(-k1) - 1 + k1}[estimator]


def shape_rewards(score, logprobs, reference_logprobs, length, kl_coef, estimator="k1"):
    """The first `length` tokens of a row belong to the response."""
    rewards = []
    for t in range(len(logprobs)):
        reward = 0.0
        if t < length:
            reward -= kl_coef * kl_estimate(logprobs[t], reference_logprobs[t], estimator)
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


def group_advantages(scores, group, divide_by_std):
    """Python lists. One response, or equal scores: 0."""
    result = []
    for score, mine in zip(scores, group, strict=True):
        members = [s for s, g in zip(scores, group, strict=True) if g == mine]
        mean = math.fsum(members) / len(members)
        if min(members) == max(members):
            result.append(0.0)
        elif divide_by_std:
            deviation = math.sqrt(math.fsum((s - mean) ** 2 for s in members) / (len(members) - 1))
            result.append((score - mean) / (deviation + 1e-4))
        else:
            result.append(score - mean)
    return result


def leave_one_out(scores, group):
    result = []
    for i, score in enumerate(scores):
        others = [s for j, s in enumerate(scores) if group[j] == group[i] and j != i]
        result.append(score - math.fsum(others) / len(others) if others else 0.0)
    return result


def overlong_penalty(length, longest, soft):
    if length <= longest - soft:
        return 0.0
    if length <= longest:
        return ((longest - soft) - length) / soft
    return -1.0
