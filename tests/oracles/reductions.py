"""Sums, moments, log-probabilities by loops over Python floats."""

import math


def selected(values, mask):
    return [v for v, m in zip(values, mask, strict=True) if m]


def mean(values):
    return math.fsum(values) / len(values)


def population_variance(values):
    centre = mean(values)
    return math.fsum((v - centre) ** 2 for v in values) / len(values)


def whiten(values, mask, shift_mean):
    """Flat lists. (v - mean) / sqrt(variance + 1e-8), the mean put back unless it is shifted; 0 where not selected."""
    kept = selected(values, mask)
    centre, variance = mean(kept), population_variance(kept)
    result = []
    for value, is_selected in zip(values, mask, strict=True):
        scaled = (value - centre) / math.sqrt(variance + 1e-8)
        result.append((scaled if shift_mean else scaled + centre) if is_selected else 0.0)
    return result


def segment_sum(values, segment, num_segments):
    return [math.fsum(v for v, s in zip(values, segment, strict=True) if s == i) for i in range(num_segments)]


def softmax(logits):
    largest = max(logits)
    weights = [math.exp(x - largest) for x in logits]
    return [w / math.fsum(weights) for w in weights]


def log_softmax(logits):
    largest = max(logits)
    normaliser = largest + math.log(math.fsum(math.exp(x - largest) for x in logits))
    return [x - normaliser for x in logits]


def entropy(logits):
    return -math.fsum(p * math.log(p) for p in softmax(logits) if p > 0)
