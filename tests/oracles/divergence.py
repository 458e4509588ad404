"""KL divergence and the best of n by enumeration, and the adaptive coefficient unrolled."""

import itertools
import math


def kl(probabilities, reference_probabilities):
    return math.fsum(p * math.log(p / q) for p, q in zip(probabilities, reference_probabilities, strict=True))


def adaptive_coefs(coef, measured, num_episodes, target, horizon):
    """The coefficient after each measurement: the initial one times the product of all corrections so far."""
    corrections = []
    for kl_now in measured:
        if kl_now > 1.2 * target:
            error = 0.2
        elif kl_now < 0.8 * target:
            error = -0.2
        else:
            error = kl_now / target - 1
        corrections.append(1 + error * num_episodes / horizon)
    return [coef * math.prod(corrections[: i + 1]) for i in range(len(corrections))]


def best_of_n(probabilities, n):
    """The distribution of the best of n draws, by all n-tuples of draws; of two outcomes the later one is better."""
    outcomes = range(len(probabilities))
    chances = [0.0 for _ in outcomes]
    for drawn in itertools.product(outcomes, repeat=n):
        chances[max(drawn)] += math.prod(probabilities[i] for i in drawn)
    return chances


def tilted(reference_probabilities, rewards, beta):
    """The policy that maximises E[reward] - beta KL(policy || reference): reference * exp(reward / beta) / Z."""
    best = max(rewards)  # taken off every reward, which changes nothing but the size of the numbers
    weights = [q * math.exp((r - best) / beta) for q, r in zip(reference_probabilities, rewards, strict=True)]
    return [w / math.fsum(weights) for w in weights]


def fixed_point_of_k3(reference_probabilities, rewards, beta, divide_by_std):
    """Where a policy gradient with k3 in the loss comes to rest, exact in expectation.

    The mean gradient of k3 is that of KL(reference || policy), so at rest policy * (r - mean r) / s =
    beta * (policy - reference), with s = 1 or the standard deviation of r under the policy itself. Hence
    policy = beta s reference / (level - r), the level such that it sums to 1; s is found by iteration.
    """
    policy, scale = list(reference_probabilities), 1.0
    for _ in range(2000):
        if divide_by_std:
            scale = 0.5 * (scale + _deviation(policy, rewards))
        strength = beta * scale
        low, high = max(rewards) + 1e-12, max(rewards) + strength
        for _ in range(100):
            level = (low + high) / 2
            mass = math.fsum(strength * q / (level - r) for q, r in zip(reference_probabilities, rewards, strict=True))
            low, high = (level, high) if mass > 1 else (low, level)
        policy = [strength * q / (high - r) for q, r in zip(reference_probabilities, rewards, strict=True)]
    return policy


def fixed_point_of_std(reference_probabilities, rewards, beta):
    """Scores divided by their standard deviation s under the policy, exact KL: the optimum for beta * s."""
    policy, scale = list(reference_probabilities), 1.0
    for _ in range(2000):
        scale = 0.5 * (scale + _deviation(policy, rewards))
        policy = tilted(reference_probabilities, rewards, beta * scale)
    return policy


def _deviation(probabilities, rewards):
    mean = math.fsum(p * r for p, r in zip(probabilities, rewards, strict=True))
    return math.sqrt(math.fsum(p * (r - mean) ** 2 for p, r in zip(probabilities, rewards, strict=True)))


def estimates(logprob, reference_logprob):
    """k1, k2 and k3 of one token, from the probabilities' ratio r = reference / policy."""
    ratio = math.exp(reference_logprob - logprob)
    return -math.log(ratio), math.log(ratio) ** 2 / 2, ratio - 1 - math.log(ratio)
