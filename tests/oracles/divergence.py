"""KL divergence by enumeration, and the adaptive coefficient unrolled."""

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


def tilted(reference_probabilities, rewards, beta):
    """The policy that maximises E[reward] - beta KL(policy || reference): reference * exp(reward / beta) / Z."""
    weights = [q * math.exp(r / beta) for q, r in zip(reference_probabilities, rewards, strict=True)]
    return [w / math.fsum(weights) for w in weights]
