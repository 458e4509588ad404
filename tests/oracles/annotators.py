"""Agreement and strengths by loops over their definitions."""

import math
from itertools import permutations


def kappa(one, other):
    total = len(one)
    agreed = sum(1 for a, b in zip(one, other, strict=True) if a == b) / total
    by_chance = sum(1 for a in one for b in other if a == b) / total**2
    return (agreed - by_chance) / (1 - by_chance)


def alpha(units, level):
    """Mean distance of two values within a unit, beside that of any two values (Krippendorff 2011, in words)."""
    units = [unit for unit in units if len(unit) > 1]
    every = [value for unit in units for value in unit]

    def distance(a, b):
        if level == "nominal":
            return float(a != b)
        low, high = min(a, b), max(a, b)
        between = sum(1 for value in every if low <= value <= high)
        return (between - (every.count(low) + every.count(high)) / 2) ** 2 if a != b else 0.0

    observed = sum(
        sum(distance(unit[i], unit[j]) for i, j in permutations(range(len(unit)), 2)) / (len(unit) - 1)
        for unit in units
    ) / len(every)
    expected = sum(distance(every[i], every[j]) for i, j in permutations(range(len(every)), 2))
    return 1 - observed / (expected / (len(every) * (len(every) - 1)))


def bradley_terry_loss(strengths, wins, prior):
    """Negative log-likelihood of wins, with prior ties against strength 0; strengths before they are centred."""
    loss = 0.0
    for (first, second), count in wins.items():
        loss += count * math.log1p(math.exp(strengths[second] - strengths[first]))
    for strength in strengths.values():
        loss += prior * (math.log1p(math.exp(strength)) + math.log1p(math.exp(-strength)))
    return loss
