"""Which comparisons are worth a person's time: how unsure scorers are of them, and in which order to ask.

A candidate is one prompt with K responses; every scorer gives each response a number, higher for better. No torch here.
"""

import math
import random
from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations


def uncertainty(rewards: Sequence[Sequence[float]]) -> float:
    """How near reward models are to a coin toss: the mean over pairs of responses of 1 - |2p - 1|, from 0 to 1.

    rewards: of each model its K scores. p = sigmoid(r_i - r_j) is the probability by Bradley and Terry (1952) that one
    is preferred to the other, averaged over the models. To ask where it is nearest to 1/2 is uncertainty sampling
    (Lewis and Gale 1994).
    """
    pairs = list(combinations(range(len(rewards[0])), 2))
    shares = [sum(_sigmoid(scores[i] - scores[j]) for scores in rewards) / len(rewards) for i, j in pairs]
    return sum(1 - abs(2 * share - 1) for share in shares) / len(pairs)


def disagreement(scores: Sequence[Sequence[float]]) -> float:
    """How split the scorers are: the mean over pairs of responses of the entropy of their votes, 0 to 1 bit.

    scores: of each scorer its K numbers, of which the order alone counts; a tie is half a vote for each. This is query
    by committee (Seung et al. 1992) with the vote entropy of Dagan and Engelson (1995).
    """
    pairs = list(combinations(range(len(scores[0])), 2))
    return sum(_entropy(sum(_vote(one[i], one[j]) for one in scores) / len(scores)) for i, j in pairs) / len(pairs)


def shuffled(count: int, *, seed: int) -> list[int]:
    """The numbers below `count`, every order equally likely."""
    return random.Random(seed).sample(range(count), count)  # noqa: S311 - no secret


def most_first(values: Sequence[float], *, seed: int) -> list[int]:
    """Indices of the values, the largest first, equal ones in random order."""
    return sorted(shuffled(len(values), seed=seed), key=lambda index: -values[index])


def round_robin(clusters: Sequence[int], *, seed: int) -> list[int]:
    """Indices such that any first ones lie in as many clusters as they can: one of each, then a second of each, ...

    clusters: of each candidate the number of its cluster. Every cluster has the same share, however large it is:
    stratified sampling (Neyman 1934) with equal allocation. The order is random where this leaves it open.
    """
    order = shuffled(len(clusters), seed=seed)
    turns: dict[int, int] = defaultdict(int)
    turn_of: dict[int, int] = {}
    for index in order:
        turn_of[index] = turns[clusters[index]]
        turns[clusters[index]] += 1
    return sorted(order, key=turn_of.__getitem__)


def _sigmoid(x: float) -> float:
    return 0.5 * (1 + math.tanh(x / 2))


def _vote(one: float, other: float) -> float:
    return 1.0 if one > other else 0.5 if one == other else 0.0


def _entropy(share: float) -> float:
    return -sum(part * math.log2(part) for part in (share, 1 - share) if part)
