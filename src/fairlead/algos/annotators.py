"""How well people agree with each other, and which model they prefer. No torch here."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Level = Literal["nominal", "ordinal"]

PRIOR = 0.1  # ties of each model with one of strength 0, so that one which never lost stays finite
TOLERANCE, MAX_STEPS = 1e-10, 100


@dataclass(frozen=True, slots=True)
class Strength:
    """A model's Bradley-Terry strength in nats, 0 for the mean of all, with its 95 % interval."""

    strength: float
    low: float
    high: float
    num_comparisons: int


def cohen_kappa(one: Sequence[Hashable], other: Sequence[Hashable]) -> float | None:
    """Agreement of two people on the same items beyond chance (Cohen 1960): (p_o - p_e) / (1 - p_e).

    None without items, and where both gave one and the same label to all of them, which chance would have done too.
    """
    total = len(one)
    if not total:
        return None
    observed = sum(first == second for first, second in zip(one, other, strict=True)) / total
    labels = {*one, *other}
    expected = sum(one.count(label) * other.count(label) for label in labels) / total**2
    return (observed - expected) / (1 - expected) if len(labels) > 1 else None


def krippendorff_alpha(units: Sequence[Sequence[float]], *, level: Level) -> float | None:
    """Agreement of any number of people, each on some of the units (Krippendorff 2004, ch. 11): 1 - D_o / D_e.

    units: for each unit the values that people gave it; one value alone says nothing. `nominal` counts unequal values,
    `ordinal` the squared number of values between them. None where fewer than two values differ.
    """
    paired = [unit for unit in units if len(unit) > 1]
    values = sorted({value for unit in paired for value in unit})
    if len(values) < 2:
        return None
    place = {value: index for index, value in enumerate(values)}
    coincidences = np.zeros((len(values), len(values)))
    for unit in paired:
        counts = np.bincount([place[value] for value in unit], minlength=len(values)).astype(float)
        coincidences += (np.outer(counts, counts) - np.diag(counts)) / (len(unit) - 1)
    totals = coincidences.sum(axis=0)
    distances = _distances(totals, level)
    observed = (coincidences * distances).sum()
    expected = (np.outer(totals, totals) * distances).sum() / (totals.sum() - 1)
    return float(1 - observed / expected)


def _distances(totals: np.ndarray, level: Level) -> np.ndarray:
    """Squared differences of each two values, which appear so often."""
    if level == "nominal":
        return 1.0 - np.eye(len(totals))
    below = np.cumsum(totals) - totals / 2
    return (below[:, None] - below[None, :]) ** 2


def bradley_terry(wins: Mapping[tuple[str, str], float]) -> dict[str, float]:
    """Strengths in nats, mean 0, under which the first of two wins with sigmoid(its strength - the other's).

    wins: how often the first was preferred to the second; half for each in a tie. These are the likeliest strengths
    (Bradley and Terry 1952), with `PRIOR` ties of every model against one that stands at 0.
    """
    models = sorted({model for pair in wins for model in pair})
    won, met = np.zeros(len(models)), np.zeros((len(models), len(models)))
    for (winner, loser), count in wins.items():
        first, second = models.index(winner), models.index(loser)
        won[first] += count
        met[first, second] += count
        met[second, first] += count
    return dict(zip(models, _strengths(won, met).tolist(), strict=True))


def _strengths(won: np.ndarray, met: np.ndarray) -> np.ndarray:
    """Newton's steps, halved while they lead downhill: the likelihood has one summit."""
    strength = np.zeros(len(won))
    for _ in range(MAX_STEPS if len(won) else 0):
        wins = _sigmoid(strength[:, None] - strength[None, :])
        alone = _sigmoid(strength)
        slope = won - (met * wins).sum(axis=1) + PRIOR * (1 - 2 * alone)
        weights = met * wins * (1 - wins)
        bend = np.diag(weights.sum(axis=1) + 2 * PRIOR * alone * (1 - alone)) - weights
        step = np.linalg.solve(bend, slope)
        while _likelihood(strength + step, won, met) < _likelihood(strength, won, met) - TOLERANCE:
            step /= 2
        strength += step
        if np.abs(step).max() < TOLERANCE:
            break
    return strength - strength.mean() if len(strength) else strength


def _likelihood(strength: np.ndarray, won: np.ndarray, met: np.ndarray) -> float:
    """Logarithm of the probability of these wins, up to what no strength changes."""
    pairs = np.logaddexp(strength[:, None], strength[None, :])
    prior = PRIOR * (strength - 2 * np.logaddexp(strength, 0))
    return float((won * strength).sum() - (met * pairs).sum() / 2 + prior.sum())


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(x / 2))


def arena(
    comparisons: Sequence[Sequence[tuple[str, str, float]]], *, seed: int, num_resamples: int = 200
) -> dict[str, Strength]:
    """Bradley-Terry strengths with percentile bootstrap intervals (Efron 1979) over the comparisons.

    comparisons: of each one the pairs of models in it with what the first won of the second: 1, 0, or 0.5 in a tie. A
    ranking of K answers is one comparison of many pairs: they are drawn together, for they are not independent.
    """
    models = sorted({model for pairs in comparisons for pair in pairs for model in pair[:2]})
    if not models:
        return {}
    won, met = np.zeros((len(comparisons), len(models))), np.zeros((len(comparisons), len(models), len(models)))
    for number, pairs in enumerate(comparisons):
        for first, second, share in pairs:
            one, other = models.index(first), models.index(second)
            won[number, one] += share
            won[number, other] += 1 - share
            met[number, one, other] += 1
            met[number, other, one] += 1
    generator = np.random.default_rng(seed)
    draws = [generator.integers(len(comparisons), size=len(comparisons)) for _ in range(num_resamples)]
    resampled = np.array([_strengths(won[draw].sum(axis=0), met[draw].sum(axis=0)) for draw in draws])
    low, high = np.quantile(resampled, [0.025, 0.975], axis=0)
    strengths = _strengths(won.sum(axis=0), met.sum(axis=0))
    took_part = (met.sum(axis=2) > 0).sum(axis=0)
    return {
        model: Strength(float(strengths[i]), float(low[i]), float(high[i]), int(took_part[i]))
        for i, model in enumerate(models)
    }
