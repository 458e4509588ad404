"""Filters of a token distribution, from their definitions, on lists of Python floats (no ties assumed)."""

import math

from oracles.reductions import softmax


def filtered_distribution(logits, seen, *, temperature, top_k, top_p, min_p, repetition_penalty):
    """Probability of each token after penalty, temperature, top-k, top-p, min-p, in this order."""
    logits = [
        (x / repetition_penalty if x > 0 else x * repetition_penalty) if s else x
        for x, s in zip(logits, seen, strict=True)
    ]
    probabilities = softmax([x / temperature for x in logits])
    if top_k > 0:
        best = sorted(probabilities, reverse=True)[:top_k]
        probabilities = _renormalised([p if p in best else 0.0 for p in probabilities])
    if top_p < 1.0:
        kept, mass = set(), 0.0
        for p in sorted(probabilities, reverse=True):
            if mass >= top_p:
                break
            kept.add(p)
            mass += p
        probabilities = _renormalised([p if p in kept else 0.0 for p in probabilities])
    largest = max(probabilities)
    return _renormalised([p if p >= min_p * largest else 0.0 for p in probabilities])


def inverse_cdf(probabilities, uniform):
    """First token at which the cumulative probability exceeds the number."""
    total = 0.0
    for token, p in enumerate(probabilities):
        total += p
        if total > uniform:
            return token
    return max(i for i, p in enumerate(probabilities) if p > 0)


def _renormalised(probabilities):
    total = math.fsum(probabilities)
    return [p / total for p in probabilities]
