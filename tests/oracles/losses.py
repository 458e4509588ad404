"""Losses for one token or one pair of Python floats, from the papers, with an if for every case."""

import math


def negative_log_sigmoid(x):
    if x > 0:
        return math.log1p(math.exp(-x))
    return -x + math.log1p(math.exp(x))


def dpo(policy_chosen, policy_rejected, reference_chosen, reference_rejected, *, beta, label_smoothing):
    """Loss, chosen reward, rejected reward."""
    log_ratio_chosen = policy_chosen - reference_chosen
    log_ratio_rejected = policy_rejected - reference_rejected
    as_labelled = negative_log_sigmoid(beta * (log_ratio_chosen - log_ratio_rejected))
    flipped = negative_log_sigmoid(beta * (log_ratio_rejected - log_ratio_chosen))
    loss = (1 - label_smoothing) * as_labelled + label_smoothing * flipped
    return loss, beta * log_ratio_chosen, beta * log_ratio_rejected


def robust_dpo(margin, *, label_smoothing):
    """The mean over labels flipped with this probability is negative_log_sigmoid(margin)."""
    flipped = label_smoothing
    as_labelled, swapped = negative_log_sigmoid(margin), negative_log_sigmoid(-margin)
    return ((1 - flipped) * as_labelled - flipped * swapped) / (1 - 2 * flipped)


def ipo(policy_chosen, policy_rejected, reference_chosen, reference_rejected, *, beta):
    h = (policy_chosen - policy_rejected) - (reference_chosen - reference_rejected)
    return (h - 1 / (2 * beta)) ** 2


def hinge(margin):
    return 1 - margin if margin < 1 else 0.0


def simpo(chosen, rejected, *, beta, gamma):
    return negative_log_sigmoid(beta * chosen - beta * rejected - gamma)


def odds_ratio(chosen, rejected):
    """Of mean log-probabilities that are not too near 0."""

    def odds(logprob):
        return math.exp(logprob) / (1 - math.exp(logprob))

    return negative_log_sigmoid(math.log(odds(chosen) / odds(rejected)))


def kto(policy, reference, desirable, kl, *, beta, desirable_weight, undesirable_weight):
    """Weight minus value: lambda - v(x, y), eqs. 7 and 8."""
    reward, point = policy - reference, kl if kl > 0 else 0.0
    if desirable:
        return desirable_weight - desirable_weight / (1 + math.exp(-beta * (reward - point)))
    return undesirable_weight - undesirable_weight / (1 + math.exp(-beta * (point - reward)))


def clipped_policy(logprob, old_logprob, advantage, clip_eps_low, clip_eps_high):
    """Loss, and whether the clip takes the gradient away: only a ratio that went too far the right way is held."""
    ratio = math.exp(logprob - old_logprob)
    if advantage > 0 and ratio > 1 + clip_eps_high:
        return -advantage * (1 + clip_eps_high), True
    if advantage < 0 and ratio < 1 - clip_eps_low:
        return -advantage * (1 - clip_eps_low), True
    return -advantage * ratio, False


def clipped_value(value, old_value, target, value_clip):
    if value > old_value + value_clip:
        held = old_value + value_clip
    elif value < old_value - value_clip:
        held = old_value - value_clip
    else:
        held = value
    error, held_error = (value - target) ** 2, (held - target) ** 2
    return error / 2 if error > held_error else held_error / 2
